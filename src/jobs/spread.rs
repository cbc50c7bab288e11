//! Searches whose trials are jobs of their own, which any worker of any machine may take.
//!
//! The search itself only queues them, waits, and concludes: it needs no thread meanwhile, and holds up no worker. All that it
//! knows is in the database, so that whoever takes it up goes on with the trials that there are. With more trials at a time
//! than what is known calls for, some are made ahead ([`crate::search::Plan::speculative`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::progress::{Progress, Silent};
use crate::search::{Outcome, Plan, Proposal, SearchEnd, SearchError, Trial};
use crate::storage::{Compression, Failure, JobId, JobRecord, JobState, NewJob, StoreError};

use super::progress::JobProgress;
use super::work::{ConcludeSearch, Done, PlanSearch, SplitFiles, gone_or_failed, search_failed};
use super::{ExecuteError, JobKind, JobSpec, Jobs, Refusal, SearchSpec, TrialResult, TrialSpec, to_json};

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
            match storage.store.note_plan(&job.lease(), &to_json(&plan)).await {
                Ok(()) => plan,
                // Somebody asked it to stop, before there was a trial.
                Err(StoreError::LeaseLost { .. }) => return Err(ExecuteError::Cancelled),
                Err(error) => return Err(ExecuteError::failed(error)),
            }
        }
    };
    let plan: Arc<Plan> = Arc::new(plan);
    let search = Spread { jobs, job, spec: &spec, plan: &plan, progress: &progress };
    let (trials, ended) = search.make_trials().await?;
    let Some(chosen) = plan.choose(&trials.finished) else {
        return Err(match ended {
            SearchEnd::Cancelled => ExecuteError::Cancelled,
            _ => search_failed(SearchError::no_trial(&trials.finished)),
        });
    };
    let made = trials.jobs.get(&chosen.number).ok_or_else(|| ExecuteError::failed("the chosen trial is gone"))?;
    let report = storage.store.job(made).await.map_err(ExecuteError::failed)?.result.unwrap_or_default();
    let artifact = report["trial"]["artifact"].as_str().unwrap_or_default();
    let artifact = files.path(artifact).await.map_err(ExecuteError::failed)?;
    let report = serde_json::from_value(report["report"].clone()).map_err(ExecuteError::failed)?;
    let file = storage.blobs.staging_file().map_err(ExecuteError::failed)?;
    let work = ConcludeSearch {
        model: upload,
        plan: Plan::clone(&plan),
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
    plan: &'a Arc<Plan>,
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
    jobs: BTreeMap<usize, JobId>,
}

impl Trials {
    fn add(&mut self, job: JobRecord) -> Result<(), ExecuteError> {
        let JobSpec::Trial(spec) = serde_json::from_value(job.spec.clone()).map_err(ExecuteError::failed)? else {
            return Err(ExecuteError::failed("a search has a part that is no trial"));
        };
        self.jobs.insert(spec.number, job.id.clone());
        let mut trial = Trial::of(spec.number, spec.proposal());
        match job.state {
            JobState::Succeeded => {
                let result = job.result.unwrap_or_default()["trial"].take();
                let result: TrialResult = serde_json::from_value(result).map_err(ExecuteError::failed)?;
                (trial.outcome, trial.seconds) = (result.outcome, result.seconds);
                self.finished.push(trial);
            }
            JobState::Failed => {
                trial.outcome = Outcome::Failed { reason: failed(job.failure)? };
                self.finished.push(trial);
            }
            JobState::Cancelled => {}
            JobState::Queued | JobState::Running | JobState::Cancelling => self.running.push((job, spec.proposal())),
        }
        Ok(())
    }
}

/// The trials to make now, `parallel` at most, beside those that are finished; or why there are none.
fn wanted(plan: &Plan, finished: &[Trial], parallel: usize) -> Result<Result<Vec<Proposal>, SearchEnd>, SearchError> {
    let course = plan.replay(finished)?;
    if let Some(end) = plan.exhausted(&course, finished) {
        return Ok(Err(end));
    }
    let Some(next) = plan.next(&course)? else { return Ok(Err(SearchEnd::Complete)) };
    let most = parallel.min(plan.max_trials() - course.len());
    let ahead = plan.speculative(&course, &next, finished, most - 1)?;
    Ok(Ok(std::iter::once(next).chain(ahead).collect()))
}

/// What a job that failed says of its trial; or of the search, where another recipe would fail as well.
fn failed(failure: Option<Failure>) -> Result<String, ExecuteError> {
    let Failure { code, detail } = failure.unwrap_or(Failure { code: String::new(), detail: String::new() });
    match serde_json::from_value::<Refusal>(code.clone().into()) {
        // Faults of a recipe are no failures of its job, but for one that takes too much.
        Ok(Refusal::LimitsExceeded) => Ok(detail),
        Ok(refusal) => Err(ExecuteError::Refused { refusal, detail }),
        Err(_) if code == "worker_lost" => Ok(detail),
        Err(_) => Err(ExecuteError::failed(format!("a trial failed: {code}: {detail}"))),
    }
}

impl Spread<'_> {
    /// Has trials made until nothing is left to try, or no more may be; none is at work then.
    async fn make_trials(&self) -> Result<(Trials, SearchEnd), ExecuteError> {
        let mut watch = self.jobs.watch(&self.job.id);
        let (mut seen, mut was_cancelled) = (None, false);
        loop {
            // Whatever changes a trial's state changes these.
            let counts = self.jobs.storage.store.trial_counts(&self.job.id).await.map_err(ExecuteError::failed)?;
            let is_cancelled = self.progress.is_cancelled();
            if seen.as_ref() != Some(&counts) || is_cancelled != was_cancelled {
                if let Some(end) = self.go_on(is_cancelled).await? {
                    return Ok(end);
                }
                // What was queued just now counts at the next look.
                (seen, was_cancelled) = (Some(counts), is_cancelled);
            }
            watch.changed().await;
        }
    }

    /// Queues what is to be tried next, or stops what is at work; returns all once that is over.
    async fn go_on(&self, is_cancelled: bool) -> Result<Option<(Trials, SearchEnd)>, ExecuteError> {
        let trials = self.trials().await?;
        let ended = match is_cancelled {
            true => {
                self.stop_unless_cancelled().await?;
                Some(SearchEnd::Cancelled)
            }
            false => self.queue_next(&trials).await?,
        };
        match ended {
            Some(ended) if trials.running.is_empty() => return Ok(Some((trials, ended))),
            Some(ended) => {
                // The time is for trials to begin: those that did come to their end.
                let begun = |job: &&JobRecord| ended == SearchEnd::Seconds && job.state != JobState::Queued;
                self.cancel(trials.running.iter().map(|(job, _)| job).filter(|job| !begun(job))).await?;
            }
            None => {
                let done = trials.finished.len();
                let fraction = (done as f64 / self.plan.max_trials() as f64).min(1.0);
                self.progress.report(fraction, "search", &self.plan.describe(done + 1, &trials.finished));
            }
        }
        Ok(None)
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

    /// Queues what is to be tried next, and takes back what waits for a worker and need not be tried any more. Returns why no more
    /// is tried, if so.
    async fn queue_next(&self, trials: &Trials) -> Result<Option<SearchEnd>, ExecuteError> {
        let (plan, finished, parallel) = (self.plan.clone(), trials.finished.clone(), self.spec.job.parallel);
        // Of thousands of trials it takes its time.
        let planned = tokio::task::spawn_blocking(move || wanted(&plan, &finished, parallel));
        let wanted = match planned.await.map_err(ExecuteError::failed)?.map_err(search_failed)? {
            Ok(wanted) => wanted,
            Err(end) => return Ok(Some(end)),
        };
        let (waiting, working): (Vec<_>, Vec<_>) =
            trials.running.iter().partition(|(job, _)| job.state == JobState::Queued);
        let needless = waiting.iter().filter(|(_, proposal)| !wanted.contains(proposal));
        self.cancel(needless.clone().map(|(job, _)| job)).await?;
        let free = parallel.saturating_sub(working.len() + waiting.len() - needless.count());
        let is_new = |proposal: &&Proposal| trials.running.iter().all(|(_, running)| running != *proposal);
        let numbers = trials.jobs.last_key_value().map_or(0, |(last, _)| *last) + 1..;
        for (number, proposal) in numbers.zip(wanted.iter().filter(is_new).take(free)) {
            match self.queue(number, proposal).await {
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
