//! The command line: the same core as the HTTP service, without a server.
//!
//! One file per subcommand, each with its `Args` and its `run`. Exit status: 0 done, 2 the input is at fault (one line
//! says how), 1 anything else.

mod bench;
mod child;
mod compress;
mod data;
mod demo;
mod evaluate;
mod export;
mod healthcheck;
mod inspect;
mod keys;
mod npz;
mod predict;
mod progress;
mod search;
mod serve;
mod table;
mod tenants;
mod worker;

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Makes trained neural networks small and keeps them usable.
#[derive(Debug, Parser)]
#[command(name = "weightpress", version, propagate_version = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the HTTP service.
    Serve(serve::Args),
    /// Run jobs for a service, without serving.
    Worker(worker::Args),
    /// Show it all on a bundled network: serve, upload, compress, evaluate, predict.
    Demo(demo::Args),
    /// Compress a model file into an artifact.
    Compress(compress::Args),
    /// Find the smallest artifact within an allowed loss, or the best one within a size.
    Search(search::Args),
    /// Show what is in a model or an artifact.
    Inspect(inspect::Args),
    /// Write an artifact back as a plain model.
    Export(export::Args),
    /// Run a model or an artifact on the arrays of an .npz file.
    Predict(predict::Args),
    /// Measure a model or an artifact on a dataset.
    Evaluate(evaluate::Args),
    /// Time a model or an artifact: latency, throughput, time per layer, beside another file or its own dense form.
    Bench(bench::Args),
    /// Make, list and revoke the keys of a service.
    Keys(keys::Args),
    /// List the tenants of a service, and say how much each may have.
    Tenants(tenants::Args),
    /// Print the OpenAPI document of the service.
    Openapi,
    /// Ask a running service whether it is ready; for container health checks.
    Healthcheck(healthcheck::Args),
    /// Work on one model for a service that keeps such work apart; the service starts it.
    #[command(hide = true)]
    Child,
}

/// Runs the command line of this process and says how it should end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Compress(args) => compress::run(args),
        Command::Search(args) => search::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Export(args) => export::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Tenants(args) => tenants::run(args),
        Command::Openapi => print_stdout(&crate::http::openapi_yaml()),
        Command::Healthcheck(args) => healthcheck::run(args),
        Command::Child => child::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe went away (`weightpress inspect F | head`): not our failure.
        Err(CliError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weightpress: {error}");
            error.exit_code()
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// What the user gave is at fault.
    #[error("{0}")]
    Input(String),
    /// The result could not be written.
    #[error("the output could not be written: {0}")]
    Output(#[from] std::io::Error),
    /// The machine or a peer failed.
    #[error("{0}")]
    Failed(String),
    /// What was asked for could not be had; the nearest was written.
    #[error("{0}")]
    Unmet(String),
}

impl CliError {
    /// An [`CliError::Input`] that shows `error`.
    fn input(error: impl std::fmt::Display) -> Self {
        Self::Input(error.to_string())
    }

    /// A [`CliError::Failed`] that shows `error`.
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Input(_) => ExitCode::from(2),
            Self::Output(_) | Self::Failed(_) => ExitCode::FAILURE,
            Self::Unmet(_) => ExitCode::from(3),
        }
    }
}

/// A [`CliError::Input`] about the file at `path`.
fn at(path: &Path, error: impl std::fmt::Display) -> CliError {
    CliError::Input(format!("{}: {error}", path.display()))
}

/// A [`CliError::Failed`] about a file that cannot be written to `path`.
fn unwritable(path: &Path, error: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("{} could not be written: {error}", path.display()))
}

/// Writes `text` to standard output.
fn print_stdout(text: &str) -> Result<(), CliError> {
    use std::io::Write;
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// Writes `value` to standard output as indented JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(CliError::failed)?;
    print_stdout(&(text + "\n"))
}
