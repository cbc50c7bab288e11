//! Progress drawn on a terminal; silent where standard error is not one.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::Progress;

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
