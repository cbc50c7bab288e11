//! Outputs of the frozen part of a network, kept for each sample.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::error::TuneError;
use super::guarded;
use super::initializer;
use super::network::Network;
use super::program::Program;
use super::samples::{Batch, Samples};
use super::scalar::Scalar;
use super::value::{IntTensor, Tensor, Value, count, to_f64};
use crate::progress::Progress;

/// Samples that run through a program at a time, and so many times at once.
const CHUNK: usize = 32;
const WAVE: usize = 16;

/// Values of all samples, a row a sample.
#[derive(Debug)]
pub struct Rows(Vec<Column>);

/// Bytes of rows that a store keeps beside those that are in use.
const STORE_BYTES: u64 = 1 << 30;

/// Rows that several runs of one network have in common, the latest used last: as many as there is room for.
#[derive(Debug, Default)]
pub struct Store(Mutex<Vec<(String, Arc<Rows>)>>);

impl Store {
    pub(super) fn get(&self, key: &str) -> Option<Arc<Rows>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(of, _)| of == key)?;
        let used = kept.remove(at);
        let rows = used.1.clone();
        kept.push(used);
        Some(rows)
    }

    pub(super) fn put(&self, key: String, rows: Rows) -> Arc<Rows> {
        let rows = Arc::new(rows);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((key, rows.clone()));
        let is_idle = |(_, rows): &(String, Arc<Rows>)| Arc::strong_count(rows) == 1;
        let mut idle_bytes: u64 = kept.iter().filter(|kept| is_idle(kept)).map(|(_, rows)| rows.size_bytes()).sum();
        kept.retain(|entry| {
            let goes = is_idle(entry) && idle_bytes > STORE_BYTES;
            idle_bytes -= if goes { entry.1.size_bytes() } else { 0 };
            !goes
        });
        rows
    }
}

#[derive(Debug)]
struct Column {
    /// Extents of a row.
    dims: Vec<usize>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl Rows {
    /// Runs the frozen part of `program` on all samples, if the outputs are rows of samples and take at most `limit`
    /// bytes. Returns also how many bytes they do take.
    ///
    /// # Errors
    /// Those of reading and running; [`TuneError::Cancelled`].
    pub fn compute(
        network: &Network,
        program: &Program,
        samples: &dyn Samples,
        limit: u64,
        progress: &dyn Progress,
    ) -> Result<Option<(Self, u64)>, TuneError> {
        let Some(mut rows) = Self::probe(network, program, samples)? else { return Ok(None) };
        let bytes = rows.0.iter().map(Column::row_bytes).sum::<u64>().saturating_mul(samples.len() as u64);
        if bytes > limit {
            return Ok(None);
        }
        rows.0.iter_mut().for_each(|column| column.reserve(samples.len()));
        let indices: Vec<usize> = (0..samples.len()).collect();
        for wave in indices.chunks(CHUNK * WAVE) {
            progress.check()?;
            let parts: Vec<Vec<Value>> = wave
                .par_chunks(CHUNK)
                .map(|chunk| guarded(|| run(network, program, samples, chunk)))
                .collect::<Result<_, _>>()?;
            for (part, chunk) in parts.into_iter().zip(wave.chunks(CHUNK)) {
                rows.add(&part, chunk.len())?;
            }
            let done = (wave[wave.len() - 1] + 1) as f64 / samples.len() as f64;
            progress.report(done, "finetune", "Outputs of what stays as it is");
        }
        Ok(Some((rows, bytes)))
    }

    /// Bytes of all rows.
    pub fn size_bytes(&self) -> u64 {
        let column = |column: &Column| match &column.data {
            Data::Float(data) => size_of_val(&data[..]) as u64,
            Data::Int(data) => size_of_val(&data[..]) as u64,
        };
        self.0.iter().map(column).sum()
    }

    /// Empty columns, where one and two samples show that outputs have a row a sample.
    fn probe(network: &Network, program: &Program, samples: &dyn Samples) -> Result<Option<Self>, TuneError> {
        let count = samples.len().min(2);
        let mut columns: Vec<Vec<Vec<usize>>> = Vec::new();
        for size in 1..=count {
            let values = guarded(|| run(network, program, samples, &(0..size).collect::<Vec<_>>()))?;
            let dims: Vec<Vec<usize>> = values.iter().map(Value::dims).collect();
            if dims.iter().any(|dims| dims.first() != Some(&size)) {
                return Ok(None);
            }
            columns.push(dims);
            if size == count {
                let is_steady = columns.iter().all(|dims| dims.iter().zip(&columns[0]).all(|(a, b)| a[1..] == b[1..]));
                let column = |value: &Value| Column {
                    dims: value.dims()[1..].to_vec(),
                    data: if let Value::Int(_) = value { Data::Int(Vec::new()) } else { Data::Float(Vec::new()) },
                };
                return Ok(is_steady.then(|| Self(values.iter().map(column).collect())));
            }
        }
        Err(TuneError::NoSamples)
    }

    fn add(&mut self, values: &[Value], samples: usize) -> Result<(), TuneError> {
        for (column, value) in self.0.iter_mut().zip(values) {
            let dims = value.dims();
            if dims.first() != Some(&samples) || dims[1..] != column.dims[..] {
                return Err(TuneError::Rows { name: "an output".to_owned(), dims, samples });
            }
            match (&mut column.data, value) {
                (Data::Float(data), Value::Float(tensor)) => match tensor.contiguous() {
                    tensor if tensor.dtype() == burn_backend::DType::F32 => data.extend_from_slice(f32::view(&tensor)),
                    tensor => data.extend(to_f64(&tensor).into_iter().map(|value| value as f32)),
                },
                (Data::Int(data), Value::Int(tensor)) => data.extend_from_slice(&tensor.data),
                _ => return Err(TuneError::Rows { name: "an output".to_owned(), dims, samples }),
            }
        }
        Ok(())
    }

    /// The rows of these samples, as [`Program::run_live`] takes them.
    pub fn take(&self, indices: &[usize]) -> Vec<Value> {
        let column = |column: &Column| {
            let (dims, row) = ([&[indices.len()], &column.dims[..]].concat(), column.row());
            match &column.data {
                Data::Float(data) => Value::Float(Tensor::Plain(f32::tensor(&dims, picked(data, indices, row)))),
                Data::Int(data) => Value::Int(IntTensor { dims, data: picked(data, indices, row).into() }),
            }
        };
        self.0.iter().map(column).collect()
    }
}

impl Column {
    fn row(&self) -> usize {
        self.dims.iter().product()
    }

    fn row_bytes(&self) -> u64 {
        let each = if let Data::Float(_) = self.data { size_of::<f32>() } else { size_of::<i64>() };
        (self.row() as u64).saturating_mul(each as u64)
    }

    fn reserve(&mut self, samples: usize) {
        let total = self.row() * samples;
        match &mut self.data {
            Data::Float(data) => data.reserve_exact(total),
            Data::Int(data) => data.reserve_exact(total),
        }
    }
}

fn picked<T: Copy>(data: &[T], indices: &[usize], row: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(indices.len() * row);
    indices.iter().for_each(|&index| out.extend_from_slice(&data[index * row..][..row]));
    out
}

fn run(
    network: &Network,
    program: &Program,
    samples: &dyn Samples,
    indices: &[usize],
) -> Result<Vec<Value>, TuneError> {
    program.run_frozen(network, bind(network, program, samples.read(indices)?, indices.len())?)
}

/// The arrays of a batch as the program's inputs, in its order.
///
/// # Errors
/// [`TuneError::MissingInput`], [`TuneError::InputType`], [`TuneError::Rows`].
pub(super) fn bind(
    network: &Network,
    program: &Program,
    batch: Batch,
    samples: usize,
) -> Result<Vec<Value>, TuneError> {
    let mut given = batch.inputs;
    let bound = program.inputs().iter().map(|(name, slot)| {
        let place = given.iter().position(|(other, _)| other == name);
        let (_, array) = given.swap_remove(place.ok_or_else(|| TuneError::MissingInput { name: name.clone() })?);
        let value = initializer::from_array(name, array)?;
        let dims = value.dims();
        if dims.first() != Some(&samples) {
            return Err(TuneError::Rows { name: name.clone(), dims, samples });
        }
        match (super::operator::kind(&value), network.kinds[*slot]) {
            (found, expected) if found == expected => Ok(value),
            (super::operator::Kind::Float, _) => {
                Err(TuneError::InputType { name: name.clone(), expected: "integers", found: "reals" })
            }
            _ => Err(TuneError::InputType { name: name.clone(), expected: "reals", found: "integers" }),
        }
    });
    bound.collect()
}

/// The targets of a batch: numbers, as many for each sample.
pub(super) fn targets(batch: &Batch, samples: usize) -> Result<Option<Vec<f64>>, TuneError> {
    let Some(target) = &batch.target else { return Ok(None) };
    let fits = target.dims.first() == Some(&samples) && count(&target.dims).is_ok_and(|count| count == target.len());
    match fits {
        true => Ok(Some((0..target.len()).map(|i| target.data.get_f64(i)).collect())),
        false => Err(TuneError::Rows { name: "the target".to_owned(), dims: target.dims.clone(), samples }),
    }
}

/// The numbers of a value of reals, widened from the element type of the network.
pub(super) fn reals(value: &Value) -> Result<Vec<f32>, TuneError> {
    match value {
        Value::Float(tensor) => Ok(to_f64(tensor.inner()).into_iter().map(|value| value as f32).collect()),
        Value::Int(_) => {
            Err(TuneError::InputType { name: "the output".to_owned(), expected: "reals", found: "integers" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_lets_go_of_what_was_used_longest_ago_and_of_nothing_in_use() {
        let rows = |megabytes: usize| {
            let data = Data::Float(vec![0.0; megabytes << 18]);
            Rows(vec![Column { dims: vec![1 << 18], data }])
        };
        let store = Store::default();
        let held = store.put("held".into(), rows(700));
        drop(store.put("old".into(), rows(600)));
        drop(store.put("new".into(), rows(600)));
        assert!(store.get("old").is_some(), "as much as there is room for");
        drop(store.put("newest".into(), rows(100)));
        let has = |key: &str| store.get(key).is_some();
        assert!(has("held") && has("old") && !has("new") && has("newest"));
        drop(held);
    }
}
