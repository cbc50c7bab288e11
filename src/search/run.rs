//! A search in one process: proposes, compresses, measures, writes down; then chooses, and measures once more.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::lab::{Lab, TrialFiles};
use super::log::Log;
use super::trial::Trial;
use super::{Search, SearchBudget, SearchData, SearchEnd, SearchError, SearchReport};
use crate::compress::{self, Report};
use crate::evaluate::EvaluateError;
use crate::model::Model;
use crate::progress::{Labelled, Part, Progress};

/// What a search leaves.
#[derive(Debug)]
pub struct Found {
    /// Every trial, and the one that was chosen.
    pub search: SearchReport,
    /// The chosen trial's own report.
    pub report: Report,
    /// The chosen trial's artifact, in the folder of the search.
    pub artifact: PathBuf,
}

/// Searches on the current rayon pool. Finished trials are kept in `folder`, from which a search of the same model, data
/// and settings goes on. Once `progress` asks to stop, the best so far is chosen; only a search that has not measured
/// any trial yet is then [`SearchError::Cancelled`]. `finished` is shown each trial that is made.
///
/// # Errors
/// A [`SearchError`].
pub fn run(
    model: &Model,
    search: &Search,
    data: SearchData,
    folder: &Path,
    progress: &dyn Progress,
    finished: &mut dyn FnMut(&Trial),
) -> Result<Found, SearchError> {
    let lab = Lab::open(model, search, data, progress)?;
    let (mut log, mut trials) = Log::open(folder, &fingerprint(model, search, lab.data())?)?;
    let budget = lab.plan().max_trials() as f64;
    let mut course = lab.plan().course(&trials);
    let ended = loop {
        if let Some(ended) = lab.plan().exhausted(&trials, &trials) {
            break ended;
        }
        let Some(proposal) = course.next()? else { break SearchEnd::Complete };
        let number = trials.len() + 1;
        let whole = Part { whole: progress, from: trials.len() as f64 / budget, to: number as f64 / budget };
        let told = Labelled { progress: &whole, label: lab.plan().describe(number, &trials) };
        let files = TrialFiles {
            artifact: log.artifact(number),
            training: log.training(number),
            start: proposal.from.map(|from| compress::tuned_file(&log.training(from))),
        };
        let mut trial = Trial::of(number, proposal);
        match lab.make(&mut trial, &files, &told) {
            Ok(report) => {
                if let Some(report) = report {
                    log.write_report(number, &report)?;
                }
                log.add(&trial)?;
                finished(&trial);
                course.add(&trial);
                trials.push(trial);
            }
            Err(SearchError::Cancelled(_)) => break SearchEnd::Cancelled,
            Err(error) => return Err(error),
        }
    };
    let Some(chosen) = lab.plan().choose(&trials) else {
        progress.check()?;
        return Err(SearchError::no_trial(&trials));
    };
    let artifact = log.artifact(chosen.number);
    let search = lab.conclude(&trials, chosen, &artifact, ended)?;
    let report = log.read_report(chosen.number)?;
    Ok(Found { search, report, artifact })
}

/// What tells this search from others: the model's bytes, what is searched for, the data and how they are mapped. When it stops
/// does not.
fn fingerprint(model: &Model, search: &Search, data: SearchData) -> Result<String, SearchError> {
    let search = Search { budget: SearchBudget::default(), ..search.clone() };
    let splits = [data.train, Some(data.validation), data.test].into_iter().flatten();
    let splits = splits.map(|split| Ok((split.dataset.sha256()?, split.map)));
    let splits = splits.collect::<Result<Vec<_>, EvaluateError>>()?;
    let text = serde_json::to_string(&(model.sha256()?, search, splits)).map_err(std::io::Error::from)?;
    Ok(hex::encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::SplitData;
    use super::*;
    use crate::evaluate::{DataMap, Dataset};
    use crate::model::fixture;

    #[test]
    fn other_data_are_another_search_and_more_time_is_not() {
        let model = Bytes::from_static(include_bytes!("../../tests/fixtures/digits_mlp.onnx"));
        let model = Model::from_bytes(model).unwrap();
        let dataset = |value: u8| {
            let array = fixture::npy("|u1", false, "(2,)", &[value, 1]);
            Dataset::from_bytes(fixture::npz(&[("x", array)], false).into()).unwrap()
        };
        let map = DataMap::default();
        let print = |search: &Search, dataset: &Dataset| {
            let validation = SplitData { dataset, map: &map };
            fingerprint(&model, search, SearchData { train: None, validation, test: None }).unwrap()
        };
        let search = Search { max_drop: Some(0.1), ..Search::default() };
        let longer = Search { budget: SearchBudget { trials: 99, seconds: Some(1.0) }, ..search.clone() };
        let (one, other) = (dataset(1), dataset(2));
        assert_eq!(print(&search, &one), print(&longer, &one));
        assert_ne!(print(&search, &one), print(&search, &other));
    }
}
