//! Searches whose trials are jobs of their own, which any worker of any machine may take.
//!
//! The search itself only queues them, waits, and concludes: it needs no thread meanwhile, and holds up no worker. All that it
//! knows is in the database, so that whoever takes it up goes on with the trials that there are. With more trials at a time
//! than what is known calls for, some are made ahead ([`crate::search::Plan::ahead`]).

use std::sync::Arc;

use crate::progress::{Progress, Silent};
use crate::search::{Outcome, Plan, Proposal, SearchEnd, SearchError, Trial};
use crate::storage::{Compression, JobId, JobRecord, JobState, NewJob, StoreError};

use super::progress::JobProgress;
use super::work::{ConcludeSearch, Done, PlanSearch, SplitFiles, gone_or_failed, search_failed};
use super::{ExecuteError, JobKind, JobSpec, Jobs, SearchSpec, TrialResult, TrialSpec, to_json};

/// Whether the trials of `job` are jobs of their own.
pub(super) fn is_spread(job: &JobRecord) -> bool {
    job.kind == JobKind::Search && job.spec["parallel"].as_u64().is_some_and(|trials| trials > 1)
}

/// Does such a search. `jobs` are those of its tenant.
pub(super) async fn run(jobs: &Jobs, job: &JobRecord, progress: Arc<JobProgress>) -> Result<Done, ExecuteError> {
    let JobSpec::Search(spec) = serde_json::from_value(job.spec.clone()).map_err(ExecuteError::failed)? else {
        return Err(ExecuteError::failed("a search of another kind"));
    };
    let (storage, executor) = (&jobs.storage, &jobs.executor);
    let model = storage.store.model(&spec.job.model).await.map_err(gone_or_failed)?;
    let files = storage.blobs.checkout();
    let upload = files.path(&model.sha256).await.map_err(ExecuteError::failed)?;
    let data = SplitFiles::find(storage, &files, &spec.job.data).await.map_err(gone_or_failed)?;
    let plan = match storage.store.plan(&job.id).await.map_err(ExecuteError::failed)? {
        Some(plan) => serde_json::from_value(plan).map_err(ExecuteError::failed)?,
        None => {
            let work = PlanSearch { model: upload.clone(), search: spec.search.clone(), data: data.clone() };
            let plan = executor.execute_job(work, progress.clone()).await?;
            storage.store.note_plan(&job.lease(), &to_json(&plan)).await.map_err(ExecuteError::failed)?;
            plan
        }
    };
    let search = Spread { jobs, job, spec: &spec, plan: &plan, progress: &progress };
    let (trials, ended) = search.make_trials().await?;
    let Some(chosen) = plan.choose(&trials.finished) else {
        return Err(match ended {
            SearchEnd::Cancelled => ExecuteError::Cancelled,
            _ => search_failed(SearchError::no_trial(&trials.finished)),
        });
    };
    let made = trials.made(chosen.number).ok_or_else(|| ExecuteError::failed("the chosen trial is gone"))?;
    let report = storage.store.job(made).await.map_err(ExecuteError::failed)?.result.unwrap_or_default();
    let artifact = report["trial"]["artifact"].as_str().unwrap_or_default();
    let artifact = files.path(artifact).await.map_err(ExecuteError::failed)?;
    let report = serde_json::from_value(report["report"].clone()).map_err(ExecuteError::failed)?;
    let file = storage.blobs.staging_file().map_err(ExecuteError::failed)?;
    let work = ConcludeSearch {
        model: upload,
        plan: plan.clone(),
        data,
        trials: trials.finished.clone(),
        chosen: chosen.clone(),
        artifact,
        ended,
        out: file.to_path_buf(),
    };
    // What was found is measured even where the search was cancelled.
    let (search, metrics) = executor.execute_job(work, Arc::new(Silent)).await?;
    let (recipe, make_default) = (chosen.recipe.clone(), spec.job.make_default && search.is_within_bound);
    let compression = Compression { recipe, report, search: Some(search), metrics, make_default };
    Ok(Done::Compressed { file, compression: Box::new(compression) })
}

/// A search at work.
struct Spread<'a> {
    jobs: &'a Jobs,
    job: &'a JobRecord,
    spec: &'a SearchSpec,
    plan: &'a Plan,
    progress: &'a JobProgress,
}

/// The trials of a search as they are at a moment.
#[derive(Debug, Default)]
struct Trials {
    /// By their numbers.
    finished: Vec<Trial>,
    /// Those that wait for a worker, or have one.
    running: Vec<(JobRecord, Proposal)>,
    /// The jobs of all, by number; cancelled ones count for nothing else.
    jobs: Vec<(usize, JobId)>,
}

impl Trials {
    fn made(&self, number: usize) -> Option<&JobId> {
        self.jobs.iter().find(|(other, _)| *other == number).map(|(_, job)| job)
    }

    fn add(&mut self, job: JobRecord) -> Result<(), ExecuteError> {
        let JobSpec::Trial(spec) = serde_json::from_value(job.spec.clone()).map_err(ExecuteError::failed)? else {
            return Err(ExecuteError::failed("a search has a part that is no trial"));
        };
        self.jobs.push((spec.number, job.id.clone()));
        let mut trial = Trial::of(spec.number, spec.proposal());
        match job.state {
            JobState::Succeeded => {
                let result = job.result.unwrap_or_default()["trial"].take();
                let result: TrialResult = serde_json::from_value(result).map_err(ExecuteError::failed)?;
                (trial.outcome, trial.seconds) = (result.outcome, result.seconds);
                self.finished.push(trial);
            }
            JobState::Failed => {
                let reason = job.failure.map(|failure| failure.detail).unwrap_or_default();
                trial.outcome = Outcome::Failed { reason };
                self.finished.push(trial);
            }
            JobState::Cancelled => {}
            JobState::Queued | JobState::Running | JobState::Cancelling => self.running.push((job, spec.proposal())),
        }
        Ok(())
    }
}

impl Spread<'_> {
    /// Has trials made until nothing is left to try, or no more may be; none is at work then.
    async fn make_trials(&self) -> Result<(Trials, SearchEnd), ExecuteError> {
        let mut watch = self.jobs.watch(&self.job.id);
        loop {
            let trials = self.trials().await?;
            let ended = match self.progress.is_cancelled() {
                true => {
                    self.stop_unless_cancelled().await?;
                    Some(SearchEnd::Cancelled)
                }
                false => match self.plan.exhausted(&trials.finished) {
                    Some(ended) => Some(ended),
                    None => self.queue_next(&trials).await?,
                },
            };
            match ended {
                Some(ended) if trials.running.is_empty() => return Ok((trials, ended)),
                Some(_) => self.cancel(trials.running.iter().map(|(job, _)| job)).await?,
                None => {
                    let (done, most) = (trials.finished.len(), self.plan.max_trials());
                    let message = self.plan.describe(done + 1, &trials.finished);
                    self.progress.report(done as f64 / most as f64, "search", &message);
                }
            }
            watch.changed().await;
        }
    }

    async fn trials(&self) -> Result<Trials, ExecuteError> {
        let mut trials = Trials::default();
        for job in self.jobs.storage.store.trials(&self.job.id).await.map_err(ExecuteError::failed)? {
            trials.add(job)?;
        }
        trials.finished.sort_by_key(|trial| trial.number);
        Ok(trials)
    }

    /// Where this process stops, or lost the search to another, the trials go on without it.
    async fn stop_unless_cancelled(&self) -> Result<(), ExecuteError> {
        let now = self.jobs.storage.store.job(&self.job.id).await.map_err(ExecuteError::failed)?;
        let is_ours = now.attempt == self.job.attempt && now.state == JobState::Cancelling;
        if is_ours { Ok(()) } else { Err(ExecuteError::Cancelled) }
    }

    /// Queues what is to be tried next, and takes back what waits for a worker and need not be tried any more. `Complete` once
    /// nothing is left to try.
    async fn queue_next(&self, trials: &Trials) -> Result<Option<SearchEnd>, ExecuteError> {
        let Some(next) = self.plan.next(&trials.finished).map_err(search_failed)? else {
            return Ok(Some(SearchEnd::Complete));
        };
        let left = self.plan.max_trials() - trials.finished.len();
        let most = self.spec.job.parallel.min(left);
        let mut wanted = vec![next];
        wanted.extend(self.plan.ahead(&trials.finished, &wanted, most - 1).map_err(search_failed)?);
        let (waiting, working): (Vec<_>, Vec<_>) =
            trials.running.iter().partition(|(job, _)| job.state == JobState::Queued);
        let needless = waiting.iter().filter(|(_, proposal)| !wanted.contains(proposal));
        self.cancel(needless.clone().map(|(job, _)| job)).await?;
        let free = most.saturating_sub(working.len() + waiting.len() - needless.count());
        let is_new = |proposal: &&Proposal| trials.running.iter().all(|(_, running)| running != *proposal);
        for (index, proposal) in wanted.iter().filter(is_new).take(free).enumerate() {
            match self.queue(trials.jobs.len() + 1 + index, proposal).await {
                Ok(_) => {}
                // Somebody asked the search to stop, or another worker has it: this one hears of it soon.
                Err(StoreError::LeaseLost { .. }) => break,
                Err(error) => return Err(ExecuteError::failed(error)),
            }
        }
        Ok(None)
    }

    async fn queue(&self, number: usize, proposal: &Proposal) -> Result<JobRecord, StoreError> {
        let SearchSpec { job, .. } = self.spec;
        let spec = TrialSpec {
            model: job.model.clone(),
            search: self.job.id.clone(),
            number,
            stage: proposal.stage,
            from: proposal.from,
            recipe: proposal.recipe.clone(),
            priority: job.priority,
        };
        let spec = JobSpec::Trial(spec);
        let trial = NewJob {
            kind: JobKind::Trial,
            priority: job.priority.into(),
            spec: to_json(&spec),
            metadata: spec.metadata().clone(),
            model: job.model.clone(),
            datasets: job.data.maps().filter_map(|map| map.dataset.clone()).collect(),
            max_attempts: self.jobs.max_attempts.into(),
            request: None,
            traceparent: self.job.traceparent.clone(),
            parent: Some(self.job.lease()),
        };
        self.jobs.enqueue(&trial).await
    }

    async fn cancel(&self, jobs: impl Iterator<Item = &JobRecord>) -> Result<(), ExecuteError> {
        for job in jobs.filter(|job| job.state != JobState::Cancelling) {
            self.jobs.cancel(&job.id).await.map_err(ExecuteError::failed)?;
        }
        Ok(())
    }
}
