//! Batches of a dataset in the shape and type that a graph takes.

use std::iter;
use std::ops::Range;

use super::mapping::SPLIT_ARRAY;
use super::{DataMap, Dataset, EvaluateError, InputMap, Split};
use crate::infer::{Array, ArrayData, Datatype};
use crate::model::{Port, element_count};

/// Samples in a batch, where the graph does not say.
const MAX_BATCH: usize = 256;
/// Bytes of all inputs of a batch, where the graph does not say: activations can take a thousand times as much (an
/// embedding of a sequence of codes, unfolded for a convolution), and several batches run at a time.
const MAX_BATCH_BYTES: usize = 512 << 10;
/// Bytes of all inputs of a batch, where the graph does say: a model may declare any number.
const MAX_FIXED_BATCH_BYTES: usize = 1 << 30;
/// Samples that an array `split` may tell apart: it is read as a whole.
const MAX_SPLIT_SAMPLES: usize = 1 << 24;

/// A mapping bound to a dataset and a graph: every name found, every shape checked.
pub(super) struct Feed<'a> {
    dataset: &'a Dataset,
    inputs: Vec<Bound>,
    target: Option<String>,
    /// Samples to go through, as runs of neighbours.
    runs: Vec<Range<usize>>,
    /// For each run, how many samples are in the runs before it.
    first_numbers: Vec<usize>,
    /// Samples in `runs`.
    pub samples: usize,
    /// Samples in every batch but the last.
    pub batch: usize,
    /// The graph takes whole batches only, so that a short one must be filled up.
    is_fixed: bool,
}

/// An input with what feeds it.
struct Bound {
    port: Port,
    datatype: Datatype,
    from: InputMap,
    /// Extents of one sample.
    shape: Vec<usize>,
    /// Bytes of an element in the dataset.
    read_bytes: usize,
}

/// The samples of one batch.
pub struct Batch {
    /// One array per input, the first extent of each the batch.
    pub inputs: Vec<(String, Array)>,
    /// Their targets.
    pub target: Option<Array>,
    /// The samples' numbers in the dataset, without those that only fill the batch up.
    pub samples: Vec<usize>,
}

/// Inputs for `count` samples at a time: the first ones that `map` selects, over again where there are fewer.
///
/// # Errors
/// An [`EvaluateError`] that names the first fault; [`EvaluateError::BatchTooLarge`] beyond 1 GiB.
pub fn first_samples(
    dataset: &Dataset,
    map: &DataMap,
    (inputs, outputs): (&[Port], &[Port]),
    count: usize,
) -> Result<Vec<(String, Array)>, EvaluateError> {
    let feed = Feed::new(dataset, &map.complete(dataset, inputs, outputs.first())?, inputs)?;
    check_size(count, feed.inputs.iter().fold(0, |sum, input| sum.saturating_add(input.sample_bytes())))?;
    feed.first(count)
}

/// Refuses batches that memory should not be asked for.
fn check_size(batch: usize, sample_bytes: usize) -> Result<(), EvaluateError> {
    match batch.checked_mul(sample_bytes.max(1)) {
        Some(bytes) if bytes <= MAX_FIXED_BATCH_BYTES => Ok(()),
        _ => Err(EvaluateError::BatchTooLarge { batch, sample_bytes, max: MAX_FIXED_BATCH_BYTES }),
    }
}

impl<'a> Feed<'a> {
    /// Binds a completed mapping.
    pub(super) fn new(dataset: &'a Dataset, map: &DataMap, ports: &[Port]) -> Result<Self, EvaluateError> {
        let mut inputs = Vec::with_capacity(ports.len());
        let mut fixed = None;
        let mut sample_bytes = 0usize;
        for port in ports {
            let from = map.inputs[&port.name].clone();
            let bound = Bound::new(dataset, port, from)?;
            sample_bytes = sample_bytes.saturating_add(bound.sample_bytes());
            if let Some(&Some(batch)) = port.dims.first() {
                match fixed.replace(batch) {
                    Some(first) if first != batch => return Err(EvaluateError::BatchSizes { first, second: batch }),
                    _ => {}
                }
            }
            inputs.push(bound);
        }
        let target = map.target.as_ref().map(|target| target.array.clone());
        let arrays = inputs.iter().map(|input| input.from.array.as_str()).chain(target.as_deref());
        let split = map.split.map(|_| SPLIT_ARRAY).filter(|&name| dataset.arrays().any(|a| a.name == name));
        let len = dataset.samples_of(arrays.chain(split))?;
        let runs = match (map.split, split) {
            (None, _) => iter::once(0..len).collect(),
            (Some(_), None) => return Err(EvaluateError::NoSplit),
            (Some(wanted), Some(_)) => runs_of(&read_split(dataset, MAX_SPLIT_SAMPLES)?, wanted)?,
        };
        let runs = match map.range {
            None => runs,
            Some((start, end)) => within(&runs, start, end)?,
        };
        let mut samples = 0;
        let before = |run: &Range<usize>| {
            samples += run.len();
            samples - run.len()
        };
        let first_numbers = runs.iter().map(before).collect();
        match map.split {
            Some(split) if samples == 0 => return Err(EvaluateError::EmptySplit { split }),
            _ if samples == 0 || fixed == Some(0) => return Err(EvaluateError::NoSamples),
            _ => {}
        }
        let batch = fixed.unwrap_or((MAX_BATCH_BYTES / sample_bytes.max(1)).clamp(1, MAX_BATCH));
        check_size(batch, sample_bytes)?;
        Ok(Self { dataset, inputs, target, runs, first_numbers, samples, batch, is_fixed: fixed.is_some() })
    }

    /// Extents of one sample of what feeds `input`: as the dataset has it, and as the graph takes it.
    pub(super) fn dims(&self, input: &str) -> Option<[&[usize]; 2]> {
        let bound = self.inputs.iter().find(|bound| bound.port.name == input)?;
        let array = self.dataset.arrays().find(|array| array.name == bound.from.array)?;
        Some([&array.dims[1..], &bound.shape])
    }

    /// Arrays of bytes that go into inputs of reals as they are, each with its input.
    pub(super) fn unscaled(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_bytes = |name: &str| self.dataset.arrays().any(|array| array.name == name && array.dtype == "uint8");
        let is_unscaled = move |bound: &&Bound| {
            bound.port.datatype.starts_with("FP") && bound.from.is_identity() && is_bytes(&bound.from.array)
        };
        self.inputs.iter().filter(is_unscaled).map(|bound| (bound.from.array.as_str(), bound.port.name.as_str()))
    }

    /// Number of batches.
    pub(super) fn batches(&self) -> usize {
        self.samples.div_ceil(self.batch)
    }

    /// Reads batch `index`.
    pub(super) fn read(&self, index: usize) -> Result<Batch, EvaluateError> {
        self.read_ranges(self.slice(index * self.batch, self.batch))
    }

    /// The targets of batch `index`, without its inputs, and the numbers of the samples.
    pub(super) fn targets(&self, index: usize) -> Result<Option<(Array, Vec<usize>)>, EvaluateError> {
        let own = self.slice(index * self.batch, self.batch);
        let Some(name) = &self.target else { return Ok(None) };
        Ok(Some((self.dataset.read_samples(name, &own)?, own.into_iter().flatten().collect())))
    }

    /// Reads samples, filling up what the graph takes in whole batches only.
    fn read_ranges(&self, own: Vec<Range<usize>>) -> Result<Batch, EvaluateError> {
        let samples: Vec<usize> = own.iter().cloned().flatten().collect();
        let target = self.target.as_ref().map(|name| self.dataset.read_samples(name, &own)).transpose()?;
        let mut ranges = own;
        if self.is_fixed {
            let last = samples[samples.len() - 1];
            ranges.extend(vec![last..last + 1; self.batch.saturating_sub(samples.len())]);
        }
        let inputs = self.inputs.iter().map(|input| input.read(self.dataset, &ranges));
        Ok(Batch { inputs: inputs.collect::<Result<_, _>>()?, target, samples })
    }

    /// Inputs for `count` of the selected samples, which start over where they run out.
    fn first(&self, count: usize) -> Result<Vec<(String, Array)>, EvaluateError> {
        let mut ranges = Vec::new();
        let mut wanted = count;
        while wanted > 0 {
            let some = self.slice(0, wanted);
            wanted -= some.iter().map(ExactSizeIterator::len).sum::<usize>();
            ranges.extend(some);
        }
        self.inputs.iter().map(|input| input.read(self.dataset, &ranges)).collect()
    }

    /// At most `count` of the selected samples, from number `skip` of them on.
    fn slice(&self, skip: usize, count: usize) -> Vec<Range<usize>> {
        slice(&self.runs, skip, count)
    }

    /// Reads the selected samples of these numbers, counted among the selected ones, in this order.
    ///
    /// # Panics
    /// If one of them is not below [`Feed::samples`], or there are none.
    pub(super) fn read_these(&self, numbers: &[usize]) -> Result<Batch, EvaluateError> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for &number in numbers {
            let run = self.first_numbers.partition_point(|&first| first <= number) - 1;
            let sample = self.runs[run].start + number - self.first_numbers[run];
            match ranges.last_mut() {
                Some(range) if range.end == sample => range.end += 1,
                _ => ranges.push(sample..sample + 1),
            }
        }
        self.read_ranges(ranges)
    }
}

/// At most `count` of the samples in `runs`, from number `skip` of them on.
fn slice(runs: &[Range<usize>], mut skip: usize, mut count: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for run in runs {
        let start = run.start + skip.min(run.len());
        let end = run.end.min(start.saturating_add(count));
        skip -= start - run.start;
        count -= end - start;
        if start < end {
            ranges.push(start..end);
        }
        if count == 0 {
            break;
        }
    }
    ranges
}

/// The samples from number `start` of those in `runs` on, up to and without number `end`.
fn within(runs: &[Range<usize>], start: usize, end: usize) -> Result<Vec<Range<usize>>, EvaluateError> {
    let samples = runs.iter().map(ExactSizeIterator::len).sum();
    match start < end && end <= samples {
        true => Ok(slice(runs, start, end - start)),
        false => Err(EvaluateError::SampleRange { start, end, samples }),
    }
}

impl Bound {
    fn new(dataset: &Dataset, port: &Port, from: InputMap) -> Result<Self, EvaluateError> {
        let entry = dataset.entry(&from.array)?;
        let datatype = port.datatype.parse()?;
        let Some((_, found)) = entry.dims.split_first() else {
            return Err(EvaluateError::NoSampleDimension { name: from.array });
        };
        let Some(shape) = sample_shape(port, found) else {
            let extents = port.dims.iter().skip(1).map(|d| d.map_or("?".into(), |d| d.to_string()));
            let needed = format!("[{}]", extents.collect::<Vec<_>>().join(", "));
            let (input, array) = (port.name.clone(), from.array);
            return Err(EvaluateError::SampleShape { input, array, needed, found: found.to_vec() });
        };
        let read_bytes = (entry.element.bits / 8) as usize;
        Ok(Self { port: port.clone(), datatype, from, shape, read_bytes })
    }

    /// Bytes of one sample in memory, as the larger of what is read and what the graph gets; saturates.
    fn sample_bytes(&self) -> usize {
        element_count(&self.shape)
            .map_or(usize::MAX, |n| n.saturating_mul(self.datatype.size_bytes().max(self.read_bytes)))
    }

    fn read(&self, dataset: &Dataset, ranges: &[Range<usize>]) -> Result<(String, Array), EvaluateError> {
        let Array { dims, data } = dataset.read_samples(&self.from.array, ranges)?;
        let data = if self.from.is_identity() && data.datatype() == self.datatype {
            data
        } else {
            let InputMap { scale, offset, .. } = self.from;
            ArrayData::from_f64(self.datatype, (0..data.len()).map(|i| data.get_f64(i) * scale + offset))
        };
        let dims = [&dims[..1], &self.shape].concat();
        Ok((self.port.name.clone(), Array::new(dims, data)?))
    }
}

/// The extents that samples of shape `found` take at `port`: the port's own where the element counts match; where it
/// leaves some open, the array's, or the one open extent that makes the counts match.
fn sample_shape(port: &Port, found: &[usize]) -> Option<Vec<usize>> {
    let Some((_, wanted)) = port.dims.split_first() else { return Some(found.to_vec()) };
    let count = element_count(found)?;
    let known = wanted.iter().flatten().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let fits = |(&wanted, &found): (&Option<usize>, &usize)| wanted.is_none_or(|wanted| wanted == found);
    if wanted.len() == found.len() && wanted.iter().zip(found).all(fits) {
        return Some(found.to_vec());
    }
    let open = match wanted.iter().filter(|d| d.is_none()).count() {
        0 if known == count => 0,
        1 if known > 0 && count.is_multiple_of(known) => count / known,
        _ => return None,
    };
    Some(wanted.iter().map(|d| d.unwrap_or(open)).collect())
}

/// The array `split`, whole, if it tells at most `max` samples apart.
fn read_split(dataset: &Dataset, max: usize) -> Result<Array, EvaluateError> {
    let dims = &dataset.entry(SPLIT_ARRAY)?.dims;
    match element_count(dims) {
        Some(found) if found <= max && dims.len() == 1 => dataset.read_all(SPLIT_ARRAY),
        _ => Err(EvaluateError::SplitShape { dims: dims.clone(), max }),
    }
}

/// The samples that belong to `wanted`.
fn runs_of(split: &Array, wanted: Split) -> Result<Vec<Range<usize>>, EvaluateError> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for sample in 0..split.len() {
        let value = split.data.get_f64(sample);
        if ![0.0, 1.0, 2.0].contains(&value) {
            return Err(EvaluateError::SplitValue { sample, value });
        }
        if value == f64::from(wanted as u8) {
            match runs.last_mut() {
                Some(run) if run.end == sample => run.end += 1,
                _ => runs.push(sample..sample + 1),
            }
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::TargetMap;
    use crate::evaluate::mapping::TargetKind;
    use crate::model::fixture::{npy, npz};

    fn port(dims: &[Option<usize>], datatype: &str) -> Port {
        Port { name: "in".into(), datatype: datatype.into(), dims: dims.to_vec() }
    }

    /// Ten samples of 2 x 3 bytes, their numbers as targets, every third one of the test split.
    fn dataset(deflated: bool) -> Dataset {
        let bytes: Vec<u8> = (0..60).collect();
        let split: Vec<u8> = (0..10).map(|i| if i % 3 == 0 { 2 } else { 0 }).collect();
        let members = [
            ("x", npy("|u1", false, "(10, 2, 3)", &bytes)),
            ("y", npy("|u1", false, "(10,)", &(0..10).collect::<Vec<_>>())),
            ("split", npy("|u1", false, "(10,)", &split)),
            ("short", npy("|u1", false, "(9,)", &[0; 9])),
        ];
        Dataset::from_bytes(npz(&members, deflated).into()).unwrap()
    }

    fn map(array: &str, split: Option<Split>) -> DataMap {
        let input = InputMap { array: array.into(), scale: 0.5, offset: 1.0 };
        let target = TargetMap { array: "y".into(), kind: TargetKind::Class };
        DataMap { split, inputs: [("in".into(), input)].into(), target: Some(target), ..DataMap::default() }
    }

    #[test]
    fn samples_are_scaled_cast_and_reshaped() {
        for deflated in [false, true] {
            let data = dataset(deflated);
            let feed = Feed::new(&data, &map("x", None), &[port(&[None, Some(6)], "FP32")]).unwrap();
            assert_eq!((feed.samples, feed.batch, feed.batches()), (10, 256, 1));
            let batch = feed.read(0).unwrap();
            let expected = ArrayData::F32((0..60).map(|i| i as f32 * 0.5 + 1.0).collect());
            assert_eq!(batch.inputs, [("in".to_owned(), Array { dims: vec![10, 6], data: expected })]);
        }
    }

    #[test]
    fn a_split_and_a_fixed_batch_select_and_fill_up() {
        let data = dataset(false);
        let feed = Feed::new(&data, &map("y", Some(Split::Test)), &[port(&[Some(3)], "INT64")]).unwrap();
        assert_eq!((feed.samples, feed.batches()), (4, 2));
        let batches: Vec<_> = (0..2).map(|i| feed.read(i).unwrap()).collect();
        assert_eq!(batches[0].samples, [0, 3, 6]);
        assert_eq!(batches[1].samples, [9]);
        // 9 / 2 + 1, truncated, three times.
        assert_eq!(batches[1].inputs[0].1, Array { dims: vec![3], data: ArrayData::I64(vec![5; 3]) });
        assert_eq!(batches[1].target, Some(Array { dims: vec![1], data: ArrayData::U8(vec![9]) }));
    }

    #[test]
    fn the_first_samples_start_over_where_they_run_out() {
        let data = dataset(false);
        let (map, ports) = (map("y", Some(Split::Test)), [port(&[None], "INT64")]);
        let inputs = first_samples(&data, &map, (&ports, &[]), 6).unwrap();
        // Half of 0, 3, 6, 9, plus 1, truncated; then 0 and 3 again.
        assert_eq!(inputs[0].1, Array { dims: vec![6], data: ArrayData::I64(vec![1, 2, 4, 5, 1, 2]) });
        let too_many = first_samples(&data, &map, (&ports, &[]), 1 << 40).unwrap_err();
        assert!(matches!(too_many, EvaluateError::BatchTooLarge { .. }), "{too_many}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let data = dataset(false);
        let error = |map: &DataMap, dims: &[Option<usize>]| {
            Feed::new(&data, map, &[port(dims, "FP32")]).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(
            error(&map("x", None), &[None, Some(7)]),
            r#"input "in" takes [7] per sample, array "x" has [2, 3] per sample"#
        );
        assert_eq!(error(&map("short", None), &[None]), r#"array "short" has 9 samples and array "y" has 10"#);
        assert_eq!(
            error(&map("z", None), &[None]),
            r#"the dataset has no array "z"; it has "x", "y", "split", "short""#
        );
        assert_eq!(
            error(&map("x", Some(Split::Validation)), &[None, Some(6)]),
            "no sample belongs to the split validation"
        );
    }

    #[test]
    fn a_batch_that_the_graph_declares_must_fit_memory() {
        let data = dataset(false);
        let error = |dims: &[Option<usize>]| {
            Feed::new(&data, &map("x", None), &[port(dims, "FP32")]).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(
            error(&[Some(1 << 40), Some(6)]),
            "1099511627776 samples of 24 bytes at a time are more than the 1073741824 bytes allowed"
        );
        assert!(error(&[Some(usize::MAX), Some(6)]).contains("18446744073709551615 samples"));
        assert!(error(&[Some(1), Some(usize::MAX), Some(2)]).contains("takes [18446744073709551615, 2] per sample"));
        assert_eq!(error(&[Some(1 << 20), Some(6)]), "");
    }

    #[test]
    fn a_split_is_one_number_a_sample_and_not_too_many() {
        let split = |shape, len| {
            let dataset = Dataset::from_bytes(npz(&[("split", npy("|u1", false, shape, &vec![0; len]))], true).into());
            read_split(&dataset.unwrap(), 10).map(|array| array.len()).map_err(|e| e.to_string())
        };
        assert_eq!(split("(10,)", 10), Ok(10));
        let refused =
            |dims| format!("array \"split\" of shape {dims} should be one number for each of at most 10 samples");
        assert_eq!(split("(11,)", 11), Err(refused("[11]")));
        assert_eq!(split("(2, 3)", 6), Err(refused("[2, 3]")));
    }

    #[test]
    fn open_extents_come_from_the_array() {
        let shape = |dims: &[Option<usize>], found: &[usize]| sample_shape(&port(dims, "FP32"), found);
        assert_eq!(shape(&[None, None, Some(4)], &[7, 4]), Some(vec![7, 4]));
        assert_eq!(shape(&[None, Some(1), Some(2), Some(3)], &[6]), Some(vec![1, 2, 3]));
        assert_eq!(shape(&[None, None, Some(2)], &[6]), Some(vec![3, 2]));
        assert_eq!(shape(&[None, None, None], &[6]), None);
        assert_eq!(shape(&[None, Some(5)], &[6]), None);
        assert_eq!(shape(&[Some(1)], &[]), Some(vec![]));
    }
}
