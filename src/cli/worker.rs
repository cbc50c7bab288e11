//! `weightpress worker`: jobs of a service, run by a process of its own until a signal ends it.

use super::CliError;
use super::serve::{Signals, block_on, listen};
use crate::app::App;
use crate::config::ConfigArgs;
use crate::{http, telemetry};

/// The settings of the service whose jobs are run: its database and its blobs. With `--listen`, or its variable, it says at that
/// address how it is, and gives its metrics; without, also with an address in the file, it listens nowhere.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs jobs until SIGTERM or SIGINT; a second one exits at once.
pub fn run(args: Args) -> Result<(), CliError> {
    // A file of settings is shared with a service, which has its address.
    let listens = args.config.listen.is_some();
    let config = args.config.resolve().map_err(CliError::input)?;
    if config.workers == 0 {
        return Err(CliError::Input("a worker with --workers 0 has nothing to do".to_owned()));
    }
    telemetry::init_log(&config.log, config.log_format).map_err(CliError::input)?;
    block_on(async {
        let shutdown = Signals::listen()?.shutdown();
        let metrics = telemetry::metrics().map_err(CliError::failed)?;
        let workers = config.workers;
        let listener = if listens { Some(listen(config.listen).await?) } else { None };
        let app = App::start(config, metrics).await.map_err(CliError::failed)?;
        tracing::info!(workers, "waiting for jobs");
        match listener {
            Some(listener) => {
                tracing::info!("listening on http://{}", listener.local_addr()?);
                http::run_operations(listener, app.clone(), shutdown).await;
            }
            None => shutdown.await,
        }
        app.shutdown().await;
        Ok(())
    })
}
