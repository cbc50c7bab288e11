//! What is trained: tensors with values of their own, or with symbols into codebooks that are.

use std::collections::BTreeMap;

use super::error::TuneError;
use super::network::Network;
use crate::prune::Mask;

/// The tensors that a run changes, or holds at values other than the file's, by name. All others stay as the network has them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    pub(super) tensors: BTreeMap<String, Parameter>,
    pub(super) codebooks: Vec<Codebook>,
}

/// One tensor, in the layout of the ONNX file.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Extents, outermost first.
    pub dims: Vec<usize>,
    /// The numbers.
    pub values: Values,
    /// Whether they stay as they are. What only frozen tensors feed is computed once for each sample.
    pub is_frozen: bool,
}

/// How a tensor's numbers are free to move.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Each by itself, but for those that a mask holds at zero.
    Free {
        /// Row-major.
        values: Vec<f32>,
        /// Where it is not set, a value is zero and stays so. None sets all.
        mask: Option<Mask>,
    },
    /// All that share a symbol together.
    Shared {
        /// Which of the codebooks; several tensors may share one.
        codebook: usize,
        /// Row-major indices into the codebook.
        symbols: Vec<u16>,
    },
}

/// The values that weights share.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook {
    /// A value a symbol.
    pub values: Vec<f32>,
    /// The symbol of pruned weights, whose value is exactly zero and never moves.
    pub zero: Option<u16>,
}

impl Parameters {
    /// No tensors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every tensor of `network` that can be trained, free, as the file has it.
    pub fn of(network: &Network) -> Self {
        let mut parameters = Self::new();
        for (name, dims) in network.tensors() {
            if let Ok(values) = network.values(name) {
                let values = Values::Free { values, mask: None };
                parameters.tensors.insert(name.to_owned(), Parameter { dims, values, is_frozen: false });
            }
        }
        parameters
    }

    /// Adds a codebook, and returns its number.
    pub fn add_codebook(&mut self, codebook: Codebook) -> usize {
        self.codebooks.push(codebook);
        self.codebooks.len() - 1
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: &str, parameter: Parameter) {
        self.tensors.insert(name.to_owned(), parameter);
    }

    /// The tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.tensors.iter().map(|(name, parameter)| (name.as_str(), parameter))
    }

    /// A tensor.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.tensors.get(name)
    }

    /// The codebooks.
    pub fn codebooks(&self) -> &[Codebook] {
        &self.codebooks
    }

    /// Changes how the numbers of a tensor are held, such as by a smaller mask or other symbols.
    ///
    /// # Errors
    /// [`TuneError::UnknownParameter`]; [`TuneError::Frozen`], since what frozen tensors yield may be cached; and where
    /// the new numbers do not fit, in which case nothing changes.
    pub fn set(&mut self, name: &str, values: Values) -> Result<(), TuneError> {
        let unknown = || TuneError::UnknownParameter { name: name.to_owned() };
        let own = self.tensors.get(name).ok_or_else(unknown)?;
        if own.is_frozen {
            return Err(TuneError::Frozen { name: name.to_owned() });
        }
        let mut parameter = Parameter { dims: own.dims.clone(), values, is_frozen: false };
        self.check_parameter(name, &mut parameter)?;
        self.tensors.insert(name.to_owned(), parameter);
        Ok(())
    }

    /// Replaces the values of a codebook.
    ///
    /// # Errors
    /// [`TuneError::ParameterIndex`] for a codebook that does not exist or has another number of values;
    /// [`TuneError::ZeroSymbol`].
    pub fn set_codebook(&mut self, codebook: usize, values: Vec<f32>) -> Result<(), TuneError> {
        let count = self.codebooks.len();
        let misfit = |what, found, count| TuneError::ParameterIndex { name: "a codebook".into(), what, found, count };
        let own = self.codebooks.get_mut(codebook).ok_or_else(|| misfit("codebook", codebook, count))?;
        if values.len() != own.values.len() {
            return Err(misfit("length", values.len(), own.values.len()));
        }
        let next = Codebook { values, zero: own.zero };
        next.check(codebook)?;
        *own = next;
        Ok(())
    }

    /// The numbers of a tensor, as the network computes with them.
    pub fn dense(&self, name: &str) -> Option<Vec<f32>> {
        self.tensors.get(name).map(|parameter| self.expand(parameter))
    }

    /// The numbers of `parameter`, which has been checked.
    pub(super) fn expand(&self, parameter: &Parameter) -> Vec<f32> {
        match &parameter.values {
            Values::Free { values, .. } => values.clone(),
            Values::Shared { codebook, symbols } => {
                let codebook = &self.codebooks[*codebook].values;
                symbols.iter().map(|&symbol| codebook[usize::from(symbol)]).collect()
            }
        }
    }

    /// Checks everything against `network`; sets what masks hold at zero.
    pub(super) fn check(&mut self, network: &Network) -> Result<(), TuneError> {
        for (id, codebook) in self.codebooks.iter().enumerate() {
            codebook.check(id)?;
        }
        let known: BTreeMap<&str, Vec<usize>> = network.tensors().collect();
        let mut tensors = std::mem::take(&mut self.tensors);
        for (name, parameter) in &mut tensors {
            let dims = known.get(&name[..]).ok_or_else(|| TuneError::UnknownParameter { name: name.clone() })?;
            if *dims != parameter.dims {
                let (name, expected, found) = (name.clone(), dims.clone(), parameter.dims.clone());
                return Err(TuneError::ParameterShape { name, expected, found });
            }
            self.check_parameter(name, parameter)?;
        }
        self.tensors = tensors;
        match self.tensors.values().any(|parameter| !parameter.is_frozen) {
            true => Ok(()),
            false => Err(TuneError::NothingToTrain),
        }
    }

    fn check_parameter(&self, name: &str, parameter: &mut Parameter) -> Result<(), TuneError> {
        let expected = parameter.dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let expected = expected.unwrap_or(usize::MAX);
        let length = |what, found| match found == expected {
            true => Ok(()),
            false => Err(TuneError::ParameterLength { name: name.to_owned(), what, expected, found }),
        };
        match &mut parameter.values {
            Values::Free { values, mask } => {
                length("values", values.len())?;
                if let Some(mask) = mask {
                    length("mask bits", mask.len())?;
                    mask.zero_others(values);
                }
            }
            Values::Shared { codebook, symbols } => {
                let misfit =
                    |what, found, count| TuneError::ParameterIndex { name: name.to_owned(), what, found, count };
                length("symbols", symbols.len())?;
                let book = self.codebooks.get(*codebook);
                let book = book.ok_or_else(|| misfit("codebook", *codebook, self.codebooks.len()))?;
                let largest = usize::from(symbols.iter().copied().max().unwrap_or(0));
                if largest >= book.values.len() && !symbols.is_empty() {
                    return Err(misfit("symbol", largest, book.values.len()));
                }
            }
        }
        Ok(())
    }
}

impl Codebook {
    fn check(&self, id: usize) -> Result<(), TuneError> {
        let Some(symbol) = self.zero else { return Ok(()) };
        match self.values.get(usize::from(symbol)) {
            Some(&0.0) => Ok(()),
            found => {
                let value = found.copied().unwrap_or(f32::NAN);
                Err(TuneError::ZeroSymbol { codebook: id, symbol, value })
            }
        }
    }
}
