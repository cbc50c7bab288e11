//! Progress drawn on a terminal; silent where standard error is not one.

use std::process::exit;
use std::sync::Arc;
use std::thread;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::CliError;
use crate::progress::{CancelFlag, Progress};

/// Positions of the bar from empty to full.
const STEPS: u64 = 1000;

/// A progress bar on standard error.
pub struct Bar(ProgressBar);

impl Bar {
    /// An empty bar; hidden when standard error is not a terminal.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{bar:40.cyan/dim} {percent:>3} % {eta:>4} {msg}")
            .expect("the template is valid");
        let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
        Self(bar.with_style(style.progress_chars("━╸─")))
    }

    /// Moves the bar to `fraction` (0 to 1).
    pub fn set(&self, fraction: f64, message: &str) {
        self.0.set_position((fraction.clamp(0.0, 1.0) * STEPS as f64) as u64);
        self.0.set_message(message.to_owned());
    }

    /// Prints a line above the bar, on standard error even where that is no terminal.
    pub fn line(&self, text: &str) {
        self.0.suspend(|| eprintln!("{text}"));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        self.set(fraction, if message.is_empty() { stage } else { message });
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A bar whose work an interrupt (Ctrl-C) ends in good order; a second one ends the process.
pub struct Interruptible<'a> {
    bar: &'a Bar,
    flag: Arc<CancelFlag>,
}

/// The exit status of a process that SIGINT ended, by the shells' convention.
const INTERRUPTED: i32 = 130;

impl<'a> Interruptible<'a> {
    /// Takes the signal over from its default, which is to end the process.
    ///
    /// # Errors
    /// Where the system does not allow that.
    pub fn new(bar: &'a Bar) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::failed)?;
        let mut interrupt = {
            let _context = runtime.enter();
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map_err(CliError::failed)?
        };
        let flag = Arc::new(CancelFlag::default());
        let raised = flag.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                interrupt.recv().await;
                raised.cancel();
                eprintln!("ending with what was found so far; a second interrupt ends at once");
                interrupt.recv().await;
                exit(INTERRUPTED);
            });
        });
        Ok(Self { bar, flag })
    }
}

impl Progress for Interruptible<'_> {
    fn report(&self, fraction: f64, stage: &str, message: &str) {
        self.bar.report(fraction, stage, message);
    }

    fn is_cancelled(&self) -> bool {
        self.flag.is_cancelled()
    }
}
