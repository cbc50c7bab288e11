//! The executor: all CPU work on uploaded files goes through it, on rayon pools that the process owns; on a thread of tokio only
//! what is over in a fraction of a millisecond ([`Executor::run_briefly`]).
//!
//! Work is a serialisable request with a serialisable answer, so that a child process can do it where the settings say so;
//! what is done with a loaded version uses [`Executor::run`] with a closure.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, oneshot};

use crate::progress::{CancelFlag, Progress};

use super::error::ExecuteError;
use super::isolation::{Limits, Purpose};

/// Requests that may wait for a thread; each keeps its body in memory meanwhile.
const MAX_WAITING: usize = 256;

/// One piece of CPU work on files, and all it needs to know.
pub trait Work: Serialize + DeserializeOwned + Send + 'static {
    /// What a child process knows it by.
    const NAME: &'static str;

    /// What it finds out.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Does the work, on the current rayon pool.
    ///
    /// # Errors
    /// [`ExecuteError`].
    fn run(&self, progress: &dyn Progress) -> Result<Self::Answer, ExecuteError>;
}

/// Runs CPU work. Clones share the pools.
///
/// There are three pools of equal width. Rayon finishes what a thread has started before it takes new work, so on one
/// pool a prediction would wait behind a whole compression, or behind the decoding of a version that is being loaded; on
/// several, the operating system shares the cores between them.
#[derive(Debug, Clone)]
pub struct Executor {
    /// Work that a request waits for.
    requests: Pool,
    /// Versions that become ready to predict.
    loads: Pool,
    /// Work of queued jobs. Workers bound how much of it there is, but for the beginnings and the ends of searches in parallel.
    jobs: Pool,
    /// Of requests, waiting or running. One that finds none free is turned away.
    places: Arc<Semaphore>,
    /// What child processes may have, where work is done in them.
    isolation: Option<Limits>,
}

/// A pool, and turns on it: one for each thread. Work waits for its turn outside, in order, where waiting costs no thread
/// and ends with the request. Inside, rayon would start it on the stack of other work that waits for a thread.
#[derive(Debug, Clone)]
struct Pool {
    threads: Arc<ThreadPool>,
    turns: Arc<Semaphore>,
    /// Pieces of work that wait for a turn.
    waiting: Arc<AtomicUsize>,
    /// Pools of one thread, those that are not in use. Work that begins while other work runs takes one of them: threads that
    /// are shared out among several pieces of work get less done than those that keep to one each.
    narrow: Arc<Mutex<Vec<Arc<ThreadPool>>>>,
}

impl Executor {
    /// Starts the pools, of `threads` threads each.
    ///
    /// # Errors
    /// When the system refuses the threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let start = |name: String, threads: usize| {
            let builder = ThreadPoolBuilder::new().num_threads(threads);
            let pool = builder.thread_name(move |index| format!("{name}-{index}")).build();
            pool.map(Arc::new).map_err(std::io::Error::other)
        };
        let pool = |name: &str| {
            let threads = start(name.to_owned(), threads)?;
            let turns = Arc::new(Semaphore::new(threads.current_num_threads()));
            Ok::<_, std::io::Error>(Pool { threads, turns, waiting: Arc::default(), narrow: Arc::default() })
        };
        let (requests, loads, jobs) = (pool("request")?, pool("load")?, pool("job")?);
        for index in 0..requests.threads.current_num_threads() {
            requests.narrow().push(start(format!("request-apart-{index}"), 1)?);
        }
        let places = Arc::new(Semaphore::new(requests.threads.current_num_threads() + MAX_WAITING));
        Ok(Self { requests, loads, jobs, places, isolation: None })
    }

    /// Does work on uploaded models in child processes that may have `limits`, if there are any.
    #[must_use]
    pub(crate) fn isolated(self, limits: Option<Limits>) -> Self {
        Self { isolation: limits, ..self }
    }

    /// What child processes may have, where work is done in them.
    pub(super) fn isolation(&self) -> Option<Limits> {
        self.isolation
    }

    /// Threads that a job has.
    pub fn threads(&self) -> usize {
        self.jobs.threads.current_num_threads()
    }

    /// What each pool does now.
    pub fn pools(&self) -> [PoolState; 3] {
        [self.requests.state("requests"), self.loads.state("loads"), self.jobs.state("jobs")]
    }

    /// Runs a closure that a request waits for. A panic in it is an error of the work, not of the service.
    ///
    /// # Errors
    /// [`ExecuteError::Panicked`]; [`ExecuteError::Busy`] when too many requests wait already.
    pub async fn run<T, F>(&self, work: F) -> Result<T, ExecuteError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let _place = self.places.try_acquire().map_err(|_| ExecuteError::Busy)?;
        self.requests.run(work).await
    }

    /// As [`Executor::run`], for what is over in less time than it takes to wake another thread and to be woken by it: it is done
    /// right here, if it may run at once.
    ///
    /// # Errors
    /// Those of [`Executor::run`].
    pub async fn run_briefly<T, F>(&self, work: F) -> Result<T, ExecuteError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if has_own_pool()
            && let Ok(_turn) = self.requests.turns.try_acquire()
        {
            return catch_unwind(AssertUnwindSafe(work)).map_err(|_panic| ExecuteError::Panicked);
        }
        self.run(work).await
    }

    /// As [`Executor::run`], for what may take seconds before the first request can be answered, while others are.
    ///
    /// # Errors
    /// Those of [`Executor::run`].
    pub async fn load<T, F>(&self, work: F) -> Result<T, ExecuteError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let _place = self.places.try_acquire().map_err(|_| ExecuteError::Busy)?;
        self.loads.run(work).await
    }

    /// Does work that a request waits for.
    ///
    /// # Errors
    /// [`ExecuteError`].
    pub async fn execute<W: Work>(&self, work: W) -> Result<W::Answer, ExecuteError> {
        let isolation = self.isolation;
        // Work whose caller goes away is not done to its end.
        let caller = Caller::default();
        let gone = caller.0.clone();
        self.run(move || perform(isolation, &work, Purpose::Request, &*gone)).await?
    }

    /// Does the work of a queued job.
    ///
    /// # Errors
    /// [`ExecuteError`].
    pub async fn execute_job<W: Work>(
        &self,
        work: W,
        progress: Arc<dyn Progress + Send + Sync>,
    ) -> Result<W::Answer, ExecuteError> {
        let isolation = self.isolation;
        self.jobs.run(move || perform(isolation, &work, Purpose::Job, &*progress)).await?
    }
}

/// Whether this thread is a rayon pool of its own, so that what is parallel in brief work stays on it. It is from the first time
/// on that somebody asks; the threads of tokio that do are few, and live as long as the process.
fn has_own_pool() -> bool {
    thread_local! {
        static OWN: OnceCell<Option<ThreadPool>> = const { OnceCell::new() };
    }
    let start = || ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok();
    OWN.with(|own| own.get_or_init(start).is_some())
}

/// Somebody who waits for work; tells when it goes away.
#[derive(Default)]
struct Caller(Arc<CancelFlag>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Does `work` here or in a child.
fn perform<W: Work>(
    isolation: Option<Limits>,
    work: &W,
    purpose: Purpose,
    progress: &dyn Progress,
) -> Result<W::Answer, ExecuteError> {
    match isolation {
        None => work.run(progress),
        Some(limits) => limits.run(work, purpose, progress),
    }
}

#[cfg(test)]
impl Executor {
    /// Keeps the threads of jobs busy until the result is dropped.
    pub(super) fn hold_jobs(&self) -> std::sync::mpsc::Sender<()> {
        use std::sync::mpsc::channel;
        let (hold, held) = channel::<()>();
        let (enter, entered) = channel();
        let (pool, held) = (self.jobs.threads.clone(), Mutex::new(held));
        let wait = move || {
            enter.send(()).expect("somebody waits");
            // Fails once `hold` is dropped.
            _ = held.lock().map(|held| held.recv());
        };
        std::thread::spawn(move || pool.broadcast(|_| wait()));
        (0..self.jobs.threads.current_num_threads()).for_each(|_| entered.recv().expect("a thread"));
        hold
    }
}

/// What a pool does at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// `requests`, `loads` or `jobs`.
    pub name: &'static str,
    pub threads: usize,
    /// Pieces of work that run.
    pub running: usize,
    /// Pieces of work that wait for one of them to end.
    pub waiting: usize,
}

/// Counts one that waits until it is dropped, at its turn or when its caller goes away.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    fn state(&self, name: &'static str) -> PoolState {
        let threads = self.threads.current_num_threads();
        let running = threads - self.turns.available_permits();
        PoolState { name, threads, running, waiting: self.waiting.load(Ordering::Relaxed) }
    }

    fn narrow(&self) -> MutexGuard<'_, Vec<Arc<ThreadPool>>> {
        // A push or a pop is whole, whatever panicked.
        self.narrow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one place where CPU work leaves tokio. Work whose caller has gone away before it starts is not done.
    async fn run<T, F>(&self, work: F) -> Result<T, ExecuteError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let waiting = Waiting::begin(&self.waiting);
        // Fails when the semaphore is closed, which nobody does.
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| ExecuteError::Busy)?;
        drop(waiting);
        let is_alone = self.turns.available_permits() + 1 == self.threads.current_num_threads();
        let narrow = if is_alone { None } else { self.narrow().pop() };
        let (answer, answered) = oneshot::channel();
        let (pool, threads) = (self.clone(), narrow.clone().unwrap_or_else(|| self.threads.clone()));
        threads.spawn(move || {
            if !answer.is_closed() {
                // Nobody may be left to hear it.
                _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
            }
            pool.narrow().extend(narrow);
            drop(turn);
        });
        match answered.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) | Err(_) => Err(ExecuteError::Panicked),
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Panics;

    impl Work for Panics {
        const NAME: &'static str = "panics";
        type Answer = ();

        fn run(&self, _progress: &dyn Progress) -> Result<(), ExecuteError> {
            panic!("the work fails on purpose");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_work_and_the_pool_lives_on() {
        let executor = Executor::start(1).expect("a pool");
        assert_eq!(executor.execute(Panics).await, Err(ExecuteError::Panicked));
        assert_eq!(executor.run(|| 7).await, Ok(7));
    }

    /// Keeps the only thread busy until the result is used.
    async fn occupy(executor: &Executor) -> std::sync::mpsc::Sender<()> {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (start, started) = oneshot::channel();
        let executor = executor.clone();
        tokio::spawn(async move {
            let work = move || {
                start.send(()).expect("somebody waits");
                _ = ended.recv();
            };
            executor.run(work).await
        });
        started.await.expect("the work starts");
        end
    }

    #[tokio::test]
    async fn requests_beyond_the_queue_are_turned_away() {
        let executor = Executor::start(1).expect("a pool");
        let end = occupy(&executor).await;
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|index| Box::pin(executor.run(move || index))).collect();
        for request in &mut waiting {
            assert!(futures_util::poll!(request.as_mut()).is_pending());
        }
        assert_eq!(executor.run(|| 7).await, Err(ExecuteError::Busy));
        let [requests, loads, _] = executor.pools();
        assert_eq!((requests.threads, requests.running, requests.waiting), (1, 1, MAX_WAITING));
        assert_eq!((loads.running, loads.waiting), (0, 0));
        // One that gives up makes room for another.
        drop(waiting.pop());
        assert_eq!(executor.pools()[0].waiting, MAX_WAITING - 1);
        let mut last = Box::pin(executor.run(|| 7));
        assert!(futures_util::poll!(last.as_mut()).is_pending());
        drop(end);
        for (index, request) in waiting.into_iter().enumerate() {
            assert_eq!(request.await, Ok(index));
        }
        assert_eq!(last.await, Ok(7));
    }

    #[tokio::test]
    async fn requests_are_answered_while_a_version_is_loaded() {
        let executor = Executor::start(1).expect("a pool");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let mut load = Box::pin(executor.load(move || ended.recv().is_err()));
        assert!(futures_util::poll!(load.as_mut()).is_pending());
        assert_eq!(executor.run(|| 7).await, Ok(7));
        drop(end);
        assert_eq!(load.await, Ok(true));
    }

    #[tokio::test]
    async fn work_whose_caller_has_gone_is_not_done() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let executor = Executor::start(1).expect("a pool");
        let end = occupy(&executor).await;
        let done = Arc::new(AtomicBool::new(false));
        let mut request = Box::pin(executor.run({
            let done = done.clone();
            move || done.store(true, Ordering::SeqCst)
        }));
        assert!(futures_util::poll!(request.as_mut()).is_pending());
        drop(request);
        drop(end);
        assert_eq!(executor.run(|| 7).await, Ok(7));
        assert!(!done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_lone_request_has_all_threads_and_others_one_each() {
        let executor = Executor::start(2).expect("a pool");
        let width = || executor.run(rayon::current_num_threads);
        assert_eq!(width().await, Ok(2));
        let end = occupy(&executor).await;
        for _ in 0..3 {
            assert_eq!(width().await, Ok(1), "beside another");
        }
        drop(end);
        // The turn of what ended is given back a moment later.
        while executor.requests.turns.available_permits() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(width().await, Ok(2));
    }

    #[tokio::test]
    async fn brief_work_runs_right_here_on_one_thread_and_waits_for_its_turn_elsewhere() {
        let executor = Executor::start(2).expect("pools");
        let here = std::thread::current().id();
        let place = || (std::thread::current().id(), rayon::current_num_threads());
        for _ in 0..2 {
            assert_eq!(executor.run_briefly(place).await, Ok((here, 1)));
        }
        let sum = || (0..1000_u32).into_par_iter().map(u64::from).sum::<u64>();
        assert_eq!(executor.run_briefly(sum).await, Ok(499_500));
        let panics = || -> () { panic!("the work fails on purpose") };
        assert_eq!(executor.run_briefly(panics).await, Err(ExecuteError::Panicked));
        let ends = [occupy(&executor).await, occupy(&executor).await];
        let mut waiting = Box::pin(executor.run_briefly(place));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(ends);
        assert!(waiting.await.is_ok_and(|(thread, _)| thread != here));
    }

    #[tokio::test]
    async fn work_runs_on_the_pools_threads() {
        let executor = Executor::start(2).expect("a pool");
        let name = executor.run(|| std::thread::current().name().map(str::to_owned)).await;
        assert!(name.is_ok_and(|name| name.is_some_and(|name| name.starts_with("request-"))));
    }
}
