//! The work of a search whose trials are jobs of their own, in its parts: what is known before the first trial, each trial, and
//! the end.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::artifact::staged;
use crate::compress::{self, Report};
use crate::jobs::progress::JobProgress;
use crate::jobs::{ExecuteError, Executor, JobResult, JobSpec, Refusal, TrialResult, TrialSpec, Work};
use crate::progress::Progress;
use crate::search::{Lab, Plan, Proposal, Search, SearchEnd, SearchReport, Trial, TrialFiles};
use crate::storage::{Checkout, JobRecord, NewMetric, Storage};

use super::data::SplitFiles;
use super::inspect::open_model;
use super::search::{Splits, refused_or_failed};
use super::{Done, gone_or_failed};

/// Measures version 0.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::jobs) struct PlanSearch {
    pub(in crate::jobs) model: PathBuf,
    pub(in crate::jobs) search: Search,
    pub(in crate::jobs) data: SplitFiles,
}

impl Work for PlanSearch {
    const NAME: &'static str = "plan_search";

    type Answer = Plan;

    fn run(&self, progress: &dyn Progress) -> Result<Plan, ExecuteError> {
        let (model, splits) = (open_model(&self.model)?, Splits::open(&self.data)?);
        let lab = Lab::open(&model, &self.search, splits.data(), progress).map_err(refused_or_failed)?;
        Ok(lab.plan().clone())
    }
}

/// Makes one trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MakeTrial {
    model: PathBuf,
    plan: Plan,
    data: SplitFiles,
    number: usize,
    proposal: Proposal,
    files: TrialFiles,
}

impl Work for MakeTrial {
    const NAME: &'static str = "make_trial";

    type Answer = (Trial, Option<Report>);

    fn run(&self, progress: &dyn Progress) -> Result<Self::Answer, ExecuteError> {
        let (model, splits) = (open_model(&self.model)?, Splits::open(&self.data)?);
        let lab = Lab::of(self.plan.clone(), &model, splits.data()).map_err(refused_or_failed)?;
        let mut trial = Trial::of(self.number, self.proposal.clone());
        let report = lab.make(&mut trial, &self.files, progress).map_err(refused_or_failed)?;
        Ok((trial, report))
    }
}

/// Measures the chosen trial on the test split, and copies its artifact to `out`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::jobs) struct ConcludeSearch {
    pub(in crate::jobs) model: PathBuf,
    pub(in crate::jobs) plan: Plan,
    pub(in crate::jobs) data: SplitFiles,
    pub(in crate::jobs) trials: Vec<Trial>,
    pub(in crate::jobs) chosen: Trial,
    pub(in crate::jobs) artifact: PathBuf,
    pub(in crate::jobs) ended: SearchEnd,
    pub(in crate::jobs) out: PathBuf,
}

impl Work for ConcludeSearch {
    const NAME: &'static str = "conclude_search";

    type Answer = (SearchReport, Vec<NewMetric>);

    fn run(&self, _progress: &dyn Progress) -> Result<Self::Answer, ExecuteError> {
        let (model, splits) = (open_model(&self.model)?, Splits::open(&self.data)?);
        let lab = Lab::of(self.plan.clone(), &model, splits.data()).map_err(refused_or_failed)?;
        let search = lab.conclude(&self.trials, &self.chosen, &self.artifact, self.ended).map_err(refused_or_failed)?;
        staged::copy(&self.artifact, &self.out).map_err(ExecuteError::failed)?;
        let metrics = splits.metrics(&search);
        Ok((search, metrics))
    }
}

/// Makes the trial that `job` asks for.
pub(super) async fn execute(
    storage: &Storage,
    executor: &Executor,
    (job, spec): (&JobRecord, &TrialSpec),
    (model, files): (PathBuf, &Checkout),
    progress: Arc<JobProgress>,
) -> Result<Done, ExecuteError> {
    let search = storage.store.job(&spec.search).await.map_err(gone_or_failed)?;
    let plan = storage.store.plan(&search.id).await.map_err(ExecuteError::failed)?;
    let of = serde_json::from_value(search.spec).map_err(ExecuteError::failed)?;
    let (JobSpec::Search(of), Some(plan), false) = (of, plan, search.state.is_final()) else {
        // Its search is over, or is none: nobody wants it.
        storage.store.cancel(&job.id).await.map_err(ExecuteError::failed)?;
        return Err(ExecuteError::Cancelled);
    };
    let plan: Plan = serde_json::from_value(plan).map_err(ExecuteError::failed)?;
    let start = match spec.from {
        Some(number) => Some(tuned_by(storage, files, spec, number).await?),
        None => None,
    };
    let data = SplitFiles::find(storage, files, &of.job.data).await.map_err(gone_or_failed)?;
    let artifact = storage.blobs.staging_file().map_err(ExecuteError::failed)?;
    let training = storage.blobs.work_folder(&job.id);
    let work = MakeTrial {
        model,
        plan,
        data,
        number: spec.number,
        proposal: spec.proposal(),
        files: TrialFiles { artifact: artifact.to_path_buf(), training: training.clone(), start },
    };
    let (trial, report) = executor.execute_job(work, progress).await?;
    let tuned = match tokio::fs::try_exists(compress::tuned_file(&training)).await.map_err(ExecuteError::failed)? {
        true => {
            let copy = storage.blobs.staging_file().map_err(ExecuteError::failed)?;
            tokio::fs::copy(compress::tuned_file(&training), &copy).await.map_err(ExecuteError::failed)?;
            Some(copy)
        }
        false => None,
    };
    let artifact = report.is_some().then_some(artifact);
    let Trial { outcome, seconds, .. } = trial;
    let result = TrialResult { outcome, seconds, artifact: None, tuned: None };
    let result = JobResult { report, trial: Some(result), ..JobResult::default() };
    Ok(Done::Tried { artifact, tuned, result: Box::new(result) })
}

/// The fine-tuned weights of another trial of the same search.
async fn tuned_by(
    storage: &Storage,
    files: &Checkout,
    spec: &TrialSpec,
    number: usize,
) -> Result<PathBuf, ExecuteError> {
    let trials = storage.store.trials(&spec.search).await.map_err(ExecuteError::failed)?;
    let result = trials.into_iter().find(|trial| trial.spec["number"] == number).and_then(|trial| trial.result);
    let tuned = result.and_then(|result| result["trial"]["tuned"].as_str().map(str::to_owned));
    let tuned = tuned.ok_or_else(|| Refusal::NotFound.because(format!("trial {number} left no weights")))?;
    files.path(&tuned).await.map_err(ExecuteError::failed)
}
