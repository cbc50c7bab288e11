//! A run as bytes, from which it goes on bit for bit.
//!
//! Little-endian: the magic with the version, a CRC-32C of what follows, a digest of the settings, epochs and steps done,
//! then codebooks, tensors and moments, each a count and the items. Lists are a length and the elements.

use super::error::TuneError;
use super::network::Network;
use super::optimizer::{Memory, Moments, Variable};
use super::parameters::{Codebook, Parameter, Parameters, Values};
use super::settings::Settings;
use super::trainer::Trainer;
use crate::prune::Mask;

const MAGIC: &[u8; 8] = b"WPTUNE\x00\x01";
/// Stands for a codebook without a symbol for zero.
const NO_ZERO: u32 = u32::MAX;

impl Trainer {
    /// The run as it is between epochs.
    pub fn state(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        out.u32(digest(&self.settings));
        out.u64(self.epoch);
        out.u64(self.step);
        out.u32(self.parameters.codebooks.len() as u32);
        for Codebook { values, zero } in &self.parameters.codebooks {
            out.u32(zero.map_or(NO_ZERO, u32::from));
            out.floats(values);
        }
        out.u32(self.parameters.tensors.len() as u32);
        for (name, parameter) in &self.parameters.tensors {
            out.parameter(name, parameter);
        }
        out.u32(self.memory.0.len() as u32);
        for (variable, moments) in &self.memory.0 {
            match variable {
                Variable::Tensor(name) => {
                    out.u32(0);
                    out.bytes(name.as_bytes());
                }
                Variable::Codebook(id) => {
                    out.u32(1);
                    out.u32(*id as u32);
                }
            }
            out.u64(moments.steps);
            out.floats(&moments.first);
            out.floats(&moments.second);
        }
        [MAGIC, &crc32c::crc32c(&out.0).to_le_bytes()[..], &out.0].concat()
    }

    /// Goes on with the run of [`Trainer::state`], on the same network and settings.
    ///
    /// # Errors
    /// [`TuneError::Checkpoint`] for bytes that are damaged or of another version; [`TuneError::OtherRun`] for other
    /// settings; those of [`Trainer::new`].
    pub fn resume(network: Network, settings: Settings, bytes: &[u8]) -> Result<Self, TuneError> {
        let damaged = |reason| TuneError::Checkpoint { reason };
        let rest = bytes.strip_prefix(MAGIC).ok_or(damaged("not a checkpoint of this version"))?;
        let (crc, body) = rest.split_first_chunk::<4>().ok_or(damaged("it ends early"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(damaged("the checksum is wrong"));
        }
        let mut from = Reader(body);
        if from.u32()? != digest(&settings) {
            return Err(TuneError::OtherRun { what: "settings" });
        }
        let (epoch, step) = (from.u64()?, from.u64()?);
        let mut parameters = Parameters::new();
        for _ in 0..from.u32()? {
            let zero = from.u32()?;
            let zero = (zero != NO_ZERO).then(|| u16::try_from(zero).map_err(|_| damaged("a symbol is too large")));
            let codebook = Codebook { zero: zero.transpose()?, values: from.floats()? };
            parameters.add_codebook(codebook);
        }
        for _ in 0..from.u32()? {
            let (name, parameter) = from.parameter()?;
            parameters.insert(&name, parameter);
        }
        let mut memory = Memory::default();
        for _ in 0..from.u32()? {
            let variable = match from.u32()? {
                0 => Variable::Tensor(from.name()?),
                _ => Variable::Codebook(from.u32()? as usize),
            };
            let moments = Moments { steps: from.u64()?, first: from.floats()?, second: from.floats()? };
            memory.0.insert(variable, moments);
        }
        if !from.0.is_empty() {
            return Err(damaged("something follows it"));
        }
        let mut trainer = Self::new(network, parameters, settings)?;
        (trainer.memory, trainer.epoch, trainer.step) = (memory, epoch, step);
        Ok(trainer)
    }
}

/// A number that differs where settings do.
fn digest(settings: &Settings) -> u32 {
    crc32c::crc32c(format!("{settings:?}").as_bytes())
}

struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn floats(&mut self, values: &[f32]) {
        self.u64(values.len() as u64);
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
    }

    fn parameter(&mut self, name: &str, parameter: &Parameter) {
        self.bytes(name.as_bytes());
        self.u64(parameter.dims.len() as u64);
        parameter.dims.iter().for_each(|&dim| self.u64(dim as u64));
        self.u32(u32::from(parameter.is_frozen));
        match &parameter.values {
            Values::Free { values, mask } => {
                self.u32(if mask.is_some() { 1 } else { 0 });
                self.floats(values);
                if let Some(mask) = mask {
                    self.u64(mask.words().len() as u64);
                    mask.words().iter().for_each(|&word| self.u64(word));
                }
            }
            Values::Shared { codebook, symbols } => {
                self.u32(2);
                self.u32(*codebook as u32);
                self.u64(symbols.len() as u64);
                symbols.iter().for_each(|symbol| self.0.extend(symbol.to_le_bytes()));
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word<const N: usize>(&mut self) -> Result<[u8; N], TuneError> {
        let (word, rest) = self.0.split_first_chunk().ok_or(TuneError::Checkpoint { reason: "it ends early" })?;
        self.0 = rest;
        Ok(*word)
    }

    fn u32(&mut self) -> Result<u32, TuneError> {
        self.word().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, TuneError> {
        self.word().map(u64::from_le_bytes)
    }

    /// A list whose length is checked against the bytes that are left before anything is allocated.
    fn list<const N: usize, T>(&mut self, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, TuneError> {
        let size = usize::try_from(self.u64()?).ok().and_then(|len| len.checked_mul(N));
        let parts = size.and_then(|size| self.0.split_at_checked(size));
        let (list, rest) = parts.ok_or(TuneError::Checkpoint { reason: "it ends early" })?;
        self.0 = rest;
        let (words, _) = list.as_chunks::<N>();
        Ok(words.iter().map(|&word| read(word)).collect())
    }

    fn floats(&mut self) -> Result<Vec<f32>, TuneError> {
        self.list(f32::from_le_bytes)
    }

    fn name(&mut self) -> Result<String, TuneError> {
        let bytes = self.list(|[byte]: [u8; 1]| byte)?;
        String::from_utf8(bytes).map_err(|_| TuneError::Checkpoint { reason: "a name is no text" })
    }

    fn parameter(&mut self) -> Result<(String, Parameter), TuneError> {
        let name = self.name()?;
        let dims = self.list(|word| u64::from_le_bytes(word) as usize)?;
        let is_frozen = self.u32()? != 0;
        let values = match self.u32()? {
            kind @ (0 | 1) => {
                let values = self.floats()?;
                let words = if kind == 1 { Some(self.list(u64::from_le_bytes)?) } else { None };
                let len = values.len();
                let mask = words.map(|words| Mask::from_words(words, len));
                let misfit = TuneError::Checkpoint { reason: "a mask does not fit its values" };
                let mask = mask.map_or(Ok(None), |mask| mask.map(Some).ok_or(misfit))?;
                Values::Free { values, mask }
            }
            _ => Values::Shared { codebook: self.u32()? as usize, symbols: self.list(u16::from_le_bytes)? },
        };
        Ok((name, Parameter { dims, values, is_frozen }))
    }
}
