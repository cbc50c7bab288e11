//! What the versions are run on: samples of a dataset, or made-up ones.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::BenchmarkError;
use crate::evaluate::{DataMap, Dataset, first_samples};
use crate::infer::{Array, ArrayData, Datatype, InferError};
use crate::model::{Port, element_count};

/// Bytes that made-up inputs of one batch may take, as those of a request.
const MAX_BYTES: usize = 64 << 20;
/// Seed of made-up samples.
const SEED: u64 = 0;

/// Where the inputs come from.
#[derive(Debug, Clone, Copy)]
pub enum Samples<'a> {
    /// The first samples of a dataset, over again where it has fewer than a batch.
    Dataset { dataset: &'a Dataset, map: &'a DataMap },
    /// Random values: floats from 0 up to 1, integers and booleans 0 or 1, since many networks look indices up in a
    /// table of unknown length. `shapes` gives the extents of one sample, the batch left out, for inputs that leave some
    /// open; an extent that nobody gives is 1.
    Random { shapes: &'a BTreeMap<String, Vec<usize>> },
}

impl Samples<'_> {
    /// Checks that inputs can be made for a graph that takes `inputs`, `batch` samples at a time.
    ///
    /// # Errors
    /// A [`BenchmarkError`] that names the input at fault.
    pub fn check(&self, inputs: &[Port], batch: usize) -> Result<(), BenchmarkError> {
        match self {
            // What a dataset holds was checked with its mapping; only reading tells more.
            Self::Dataset { .. } => Ok(()),
            Self::Random { shapes } => random_shapes(shapes, inputs, batch).map(drop),
        }
    }

    /// Inputs for a graph with these inputs and outputs.
    ///
    /// # Errors
    /// As [`Samples::check`], and what reading a dataset may meet.
    pub fn read(&self, ports: (&[Port], &[Port]), batch: usize) -> Result<Vec<(String, Array)>, BenchmarkError> {
        match self {
            Self::Dataset { dataset, map } => Ok(first_samples(dataset, map, ports, batch)?),
            Self::Random { shapes } => random_samples(shapes, ports.0, batch),
        }
    }
}

fn random_samples(
    shapes: &BTreeMap<String, Vec<usize>>,
    inputs: &[Port],
    batch: usize,
) -> Result<Vec<(String, Array)>, BenchmarkError> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let shapes = random_shapes(shapes, inputs, batch)?.into_iter().zip(inputs);
    Ok(shapes.map(|((datatype, dims), port)| (port.name.clone(), random_array(&mut random, datatype, dims))).collect())
}

fn too_large(batch: usize) -> BenchmarkError {
    BenchmarkError::TooLarge { batch, max_bytes: MAX_BYTES }
}

/// Type and extents of each input.
fn random_shapes(
    shapes: &BTreeMap<String, Vec<usize>>,
    inputs: &[Port],
    batch: usize,
) -> Result<Vec<(Datatype, Vec<usize>)>, BenchmarkError> {
    if let Some(name) = shapes.keys().find(|name| inputs.iter().all(|port| port.name != **name)) {
        let known = inputs.iter().map(|port| port.name.clone()).collect();
        return Err(BenchmarkError::UnknownInput { name: name.clone(), known });
    }
    let mut bytes = 0usize;
    let mut found = Vec::with_capacity(inputs.len());
    for port in inputs {
        let datatype: Datatype = port.datatype.parse().map_err(|_| {
            let (name, datatype) = (port.name.clone(), port.datatype.clone());
            InferError::UnsupportedType { name, datatype }
        })?;
        let dims = dims_of(port, shapes.get(&port.name), batch)?;
        let size = element_count(&dims).and_then(|count| count.checked_mul(datatype.size_bytes()));
        bytes = size.and_then(|size| size.checked_add(bytes)).filter(|&b| b <= MAX_BYTES).ok_or(too_large(batch))?;
        found.push((datatype, dims));
    }
    Ok(found)
}

/// The extents of `port` for `batch` samples of this shape.
fn dims_of(port: &Port, shape: Option<&Vec<usize>>, batch: usize) -> Result<Vec<usize>, BenchmarkError> {
    let Some((first, rest)) = port.dims.split_first() else { return Ok(Vec::new()) };
    let shape = match shape {
        None => rest.iter().map(|extent| extent.unwrap_or(1)).collect(),
        Some(shape) => {
            let fits = rest.iter().zip(shape).all(|(rest, &given)| given > 0 && rest.is_none_or(|rest| rest == given));
            if rest.len() != shape.len() || !fits {
                let extents = rest.iter().map(|extent| extent.map_or("?".to_owned(), |extent| extent.to_string()));
                let needed = format!("[{}]", extents.collect::<Vec<_>>().join(", "));
                return Err(BenchmarkError::Shape { name: port.name.clone(), needed, found: shape.clone() });
            }
            shape.clone()
        }
    };
    Ok([vec![first.unwrap_or(batch)], shape].concat())
}

/// Values between 0 and 1, or of 0 and 1.
fn random_array(random: &mut ChaCha8Rng, datatype: Datatype, dims: Vec<usize>) -> Array {
    let is_float = matches!(datatype, Datatype::F16 | Datatype::Bf16 | Datatype::F32 | Datatype::F64);
    let value = |bits: u32| match is_float {
        true => f64::from(bits >> 8) / f64::from(1 << 24),
        false => f64::from(bits >> 31),
    };
    let count = dims.iter().product::<usize>();
    Array { data: ArrayData::from_f64(datatype, (0..count).map(|_| value(random.next_u32()))), dims }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, datatype: &str, dims: &[Option<usize>]) -> Port {
        Port { name: name.into(), datatype: datatype.into(), dims: dims.to_vec() }
    }

    #[test]
    fn random_samples_have_the_types_and_shapes_of_the_inputs() {
        let inputs = [port("codes", "INT64", &[None, None]), port("image", "FP32", &[Some(3), Some(2), None])];
        let shapes = BTreeMap::from([("codes".to_owned(), vec![100])]);
        let samples = Samples::Random { shapes: &shapes };
        let arrays = samples.read((&inputs, &[]), 3).unwrap();
        let [(_, codes), (_, image)] = &arrays[..] else { panic!("two inputs") };
        assert_eq!((codes.dims.as_slice(), image.dims.as_slice()), (&[3, 100][..], &[3, 2, 1][..]));
        let ArrayData::I64(codes) = &codes.data else { panic!("integers") };
        assert!(codes.iter().all(|code| (0..2).contains(code)) && codes.contains(&0) && codes.contains(&1));
        let ArrayData::F32(pixels) = &image.data else { panic!("floats") };
        assert!(pixels.iter().all(|pixel| (0.0..1.0).contains(pixel)));
        assert_eq!(arrays, samples.read((&inputs, &[]), 3).unwrap(), "the same every time");
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let fault = |name: &str, shape: &[usize], dims: &[Option<usize>]| {
            let shapes = BTreeMap::from([(name.to_owned(), shape.to_vec())]);
            let checked = Samples::Random { shapes: &shapes }.check(&[port("x", "FP32", dims)], 2);
            checked.unwrap_err().to_string()
        };
        assert_eq!(fault("y", &[1], &[None]), "the graph has no input y; it has x");
        let needed = "a sample of input x has the shape [3, ?], found";
        for shape in [&[3][..], &[3, 0], &[4, 1], &[3, 1, 1]] {
            assert_eq!(fault("x", shape, &[None, Some(3), None]), format!("{needed} {shape:?}"));
        }
        for shape in [usize::MAX, (1 << 23) + 1] {
            let too_large = fault("x", &[shape], &[None, None]);
            assert_eq!(too_large, "2 samples of the inputs take more than the 67108864 bytes allowed", "{shape}");
        }
    }
}
