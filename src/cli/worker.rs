//! `weightpress worker`: jobs of a service, run by a process of its own until a signal ends it.

use super::CliError;
use super::serve::{Signals, block_on};
use crate::app::App;
use crate::config::ConfigArgs;
use crate::telemetry;

/// The settings of the service whose jobs are run: its database and its blobs. It listens nowhere.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs jobs until SIGTERM or SIGINT; a second one exits at once.
pub fn run(args: Args) -> Result<(), CliError> {
    let config = args.config.resolve().map_err(CliError::input)?;
    if config.workers == 0 {
        return Err(CliError::Input("a worker with --workers 0 has nothing to do".to_owned()));
    }
    telemetry::init_log(&config.log, config.log_format).map_err(CliError::input)?;
    block_on(async {
        let shutdown = Signals::listen()?.shutdown();
        let metrics = telemetry::metrics().map_err(CliError::failed)?;
        let workers = config.workers;
        let app = App::start(config, metrics).await.map_err(CliError::failed)?;
        tracing::info!(workers, "waiting for jobs");
        shutdown.await;
        app.shutdown().await;
        Ok(())
    })
}
