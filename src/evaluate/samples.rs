//! The samples that a mapping selects of a dataset, read in any order: what calibration and fine-tuning learn from.

use super::feed::Feed;
use super::run::class;
use super::{Batch, DataMap, Dataset, EvaluateError, TargetKind};
use crate::model::Port;

/// The samples that a mapping selects of a dataset, as a graph takes them; shared by threads.
pub struct Samples<'a> {
    feed: Feed<'a>,
    target: Option<TargetKind>,
}

impl<'a> Samples<'a> {
    /// Binds `map` to a dataset and a graph with these inputs and outputs, without reading a sample.
    ///
    /// # Errors
    /// An [`EvaluateError`] that names the first fault.
    pub fn open(dataset: &'a Dataset, map: &DataMap, ports: (&[Port], &[Port])) -> Result<Self, EvaluateError> {
        let (inputs, outputs) = ports;
        let map = map.complete(dataset, inputs, outputs.first())?;
        Ok(Self { feed: Feed::new(dataset, &map, inputs)?, target: map.target.map(|target| target.kind) })
    }

    /// The same, or `None` where none of the samples belongs to the split that `map` names.
    ///
    /// # Errors
    /// As [`Samples::open`].
    pub fn open_if_any(
        dataset: &'a Dataset,
        map: &DataMap,
        ports: (&[Port], &[Port]),
    ) -> Result<Option<Self>, EvaluateError> {
        match Self::open(dataset, map, ports) {
            Ok(samples) => Ok(Some(samples)),
            Err(EvaluateError::EmptySplit { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many there are; at least one.
    pub fn len(&self) -> usize {
        self.feed.samples
    }

    /// Never: a selection without samples is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What their targets are, where there are any.
    pub fn target(&self) -> Option<TargetKind> {
        self.target
    }

    /// Reads all targets, and checks that they are what they are said to be: classes below `classes`, or finite values.
    ///
    /// # Errors
    /// [`EvaluateError::LabelOutOfRange`], [`EvaluateError::FractionalLabel`], [`EvaluateError::TargetNotFinite`]; those of the file.
    pub fn check_targets(&self, classes: Option<usize>) -> Result<(), EvaluateError> {
        for batch in 0..self.feed.batches() {
            let Some((targets, samples)) = self.feed.targets(batch)? else { break };
            for i in 0..targets.len() {
                let (sample, value) = (samples[i * samples.len() / targets.len()], targets.data.get_f64(i));
                match (self.target, classes) {
                    (Some(TargetKind::Class), Some(classes)) => drop(class(sample, value, classes)?),
                    _ if value.is_finite() => {}
                    _ => return Err(EvaluateError::TargetNotFinite { sample, value }),
                }
            }
        }
        Ok(())
    }

    /// Arrays of bytes that go into inputs of reals as they are, each with its input: a scale may have been forgotten.
    pub fn unscaled(&self) -> impl Iterator<Item = (&str, &str)> {
        self.feed.unscaled()
    }

    /// Extents of one sample of what feeds `input`: as the dataset has it, and as the graph takes it.
    pub fn dims(&self, input: &str) -> Option<[&[usize]; 2]> {
        self.feed.dims(input)
    }

    /// Samples that should be read at a time, to bound memory; exactly as many as a graph of a fixed batch takes.
    pub fn batch(&self) -> usize {
        self.feed.batch
    }

    /// Reads samples by their numbers, each below [`Samples::len`], in the order given. For a graph of a fixed batch the
    /// last one is repeated until the batch is full; [`Batch::samples`] tells how many are meant.
    ///
    /// # Errors
    /// An [`EvaluateError`] where the file cannot be read.
    ///
    /// # Panics
    /// If there are no `numbers`, or one of them is out of range.
    pub fn read(&self, numbers: &[usize]) -> Result<Batch, EvaluateError> {
        assert!(numbers.iter().all(|&number| number < self.len()) && !numbers.is_empty(), "numbers of samples");
        self.feed.read_these(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{InputMap, Split, TargetMap};
    use crate::infer::ArrayData;
    use crate::model::fixture::{npy, npz};

    #[test]
    fn samples_of_a_split_and_a_range_come_in_any_order() {
        let numbers: Vec<u8> = (0..10).collect();
        let split: Vec<u8> = (0..10).map(|i| i % 2).collect();
        let arrays = ["x", "y"].map(|name| (name, npy("|u1", false, "(10,)", &numbers)));
        let split = ("split", npy("|u1", false, "(10,)", &split));
        let members = [&arrays[..], &[split]].concat();
        let dataset = Dataset::from_bytes(npz(&members, true).into()).unwrap();
        let target = TargetMap { array: "y".into(), kind: TargetKind::Class };
        let inputs = [("in".to_owned(), InputMap::new("x"))].into();
        let map = DataMap { split: Some(Split::Validation), inputs, target: Some(target), ..DataMap::default() };
        let port = Port { name: "in".into(), datatype: "FP32".into(), dims: vec![None] };
        let open =
            |range| Samples::open(&dataset, &DataMap { range, ..map.clone() }, (std::slice::from_ref(&port), &[]));

        // 1, 3, 5, 7, 9
        let samples = open(None).unwrap();
        assert_eq!((samples.len(), samples.target()), (5, Some(TargetKind::Class)));
        assert_eq!((samples.dims("in"), samples.dims("x")), (Some([&[][..]; 2]), None));
        let batch = samples.read(&[4, 0, 1, 2, 4]).unwrap();
        assert_eq!(batch.target.unwrap().data, ArrayData::U8(vec![9, 1, 3, 5, 9]));
        assert_eq!(batch.inputs[0].1.data, ArrayData::F32(vec![9.0, 1.0, 3.0, 5.0, 9.0]));

        let middle = open(Some((1, 3))).unwrap();
        assert_eq!(middle.read(&[0, 1]).unwrap().samples, [3, 5]);
        let error = open(Some((3, 6))).err().unwrap();
        assert_eq!(error.to_string(), "no samples from 3 up to 6: there are 5");

        assert_eq!(samples.unscaled().collect::<Vec<_>>(), [("x", "in")]);
        assert!(samples.check_targets(Some(10)).is_ok() && samples.check_targets(None).is_ok());
        let error = samples.check_targets(Some(8)).unwrap_err().to_string();
        assert_eq!(error, "sample 9: label 9 is outside the 8 classes of the output");
        let inputs = [("in".to_owned(), InputMap { scale: 0.5, ..InputMap::new("x") })].into();
        let map = DataMap { split: Some(Split::Test), inputs, ..map.clone() };
        let open = |map: &DataMap| Samples::open_if_any(&dataset, map, (std::slice::from_ref(&port), &[])).unwrap();
        assert!(open(&map).is_none(), "no sample is for tests");
        let scaled = open(&DataMap { split: None, ..map }).unwrap();
        assert_eq!((scaled.unscaled().count(), scaled.len()), (0, 10));
    }
}
