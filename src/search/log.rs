//! The trials of a search on disk, so that one that was cut off goes on where it was.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{SearchError, Trial};
use crate::artifact::staged::Staged;
use crate::compress::Report;

/// The file of the trials: a line of JSON for the search, then one for each trial.
const FILE: &str = "trials.jsonl";

/// A folder with the trials of one search, and with what each of them made.
pub(super) struct Log {
    folder: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log in `folder`, which is made if need be, and reads the trials that are finished. `search` tells searches
    /// apart.
    pub(super) fn open(folder: &Path, search: &str) -> Result<(Self, Vec<Trial>), SearchError> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // A line without its end was being written when the process died: the trial is made again.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let mut log = Self { folder: folder.to_owned(), file };
        let mut lines = text[..whole].split_inclusive(|byte| *byte == b'\n');
        let Some(first) = lines.next() else {
            log.append(&json!({ "search": search }))?;
            return Ok((log, Vec::new()));
        };
        let header: serde_json::Value = serde_json::from_slice(first).map_err(io::Error::from)?;
        if header["search"] != search {
            return Err(SearchError::OtherSearch);
        }
        let trials = lines.map(serde_json::from_slice).collect::<Result<Vec<Trial>, _>>().map_err(io::Error::from)?;
        Ok((log, trials))
    }

    /// Adds a finished trial, which is on the disk once this returns.
    pub(super) fn add(&mut self, trial: &Trial) -> Result<(), SearchError> {
        self.append(&serde_json::to_value(trial).map_err(io::Error::from)?)
    }

    fn append(&mut self, line: &serde_json::Value) -> Result<(), SearchError> {
        self.file.write_all(format!("{line}\n").as_bytes())?;
        Ok(self.file.sync_data()?)
    }

    /// Where the artifact of a trial is.
    pub(super) fn artifact(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.wp"))
    }

    /// Keeps the report of a trial, which is on the disk once this returns.
    pub(super) fn write_report(&self, number: usize, report: &Report) -> Result<(), SearchError> {
        let mut file = Staged::new(&self.report(number))?;
        serde_json::to_writer(&mut file, report).map_err(io::Error::from)?;
        Ok(file.publish()?)
    }

    pub(super) fn read_report(&self, number: usize) -> Result<Report, SearchError> {
        Ok(serde_json::from_slice(&std::fs::read(self.report(number))?).map_err(io::Error::from)?)
    }

    fn report(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.json"))
    }

    /// Where a trial keeps its checkpoints and its fine-tuned weights.
    pub(super) fn training(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.training"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Recipe;
    use crate::search::{Outcome, TrialStage};

    #[test]
    fn trials_come_back_but_for_one_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, none) = Log::open(folder.path(), "a").unwrap();
        assert!(none.is_empty());
        let outcome = Outcome::Failed { reason: "too wide".into() };
        let (stage, recipe) = (TrialStage::Grid, Recipe::default());
        let trial = Trial { number: 1, stage, from: None, recipe, outcome, seconds: 0.5 };
        log.add(&trial).unwrap();
        log.file.write_all(br#"{"number": 2, "st"#).unwrap();
        let (mut log, back) = Log::open(folder.path(), "a").unwrap();
        assert_eq!(back, std::slice::from_ref(&trial));
        log.add(&Trial { number: 2, ..trial }).unwrap();
        assert_eq!(Log::open(folder.path(), "a").unwrap().1.len(), 2);
        assert!(matches!(Log::open(folder.path(), "b"), Err(SearchError::OtherSearch)));
    }
}
