//! `weightpress serve`: the HTTP service until a signal ends it.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::CliError;
use crate::app::App;
use crate::config::{Config, ConfigArgs, Keys};
use crate::{http, telemetry, trace};

/// The settings of the service.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Serves until SIGTERM or SIGINT; a second one exits at once.
pub fn run(args: Args) -> Result<(), CliError> {
    let config = args.config.resolve().map_err(CliError::input)?;
    telemetry::init_log(&config.log, config.log_format).map_err(CliError::input)?;
    block_on(async {
        let shutdown = Signals::listen()?.shutdown();
        serve(config, |address| tracing::info!("listening on http://{address}"), shutdown).await
    })
}

/// Serves while `client` runs, which is given the address and may block; after it until a signal comes if `keep` is
/// set. A signal ends it early, in good order.
pub fn while_serving(
    config: Config,
    keep: bool,
    client: impl FnOnce(SocketAddr) -> Result<(), CliError> + Send + 'static,
) -> Result<(), CliError> {
    block_on(async {
        let mut signals = Signals::listen()?;
        let (done, finished) = oneshot::channel();
        let ready = move |address| drop(tokio::task::spawn_blocking(move || done.send(client(address))));
        let mut outcome = Ok(());
        let shutdown = async {
            tokio::select! {
                () = signals.next() => return,
                result = finished => outcome = result.unwrap_or_else(|_| Err(CliError::Failed("the client died".into()))),
            }
            if keep && outcome.is_ok() {
                signals.next().await;
            }
        };
        serve(config, ready, shutdown).await?;
        outcome
    })
}

/// Binds the address, starts the application, tells `ready` where it is, and serves until `shutdown` resolves.
async fn serve(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), CliError> {
    let listener = listen(config.listen).await?;
    let address = listener.local_addr()?;
    let metrics = telemetry::metrics().map_err(CliError::failed)?;
    let keys = config.keys;
    let app = App::start(config, metrics).await.map_err(CliError::failed)?;
    warn_of_keys(&app, keys, address).await?;
    ready(address);
    http::run(listener, app.clone(), shutdown).await;
    app.shutdown().await;
    Ok(())
}

/// Takes `address`.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| CliError::Input(format!("cannot listen on {address}: {error}")))
}

/// Says so where nobody can get in, and where everybody can.
async fn warn_of_keys(app: &App, keys: Keys, address: SocketAddr) -> Result<(), CliError> {
    if keys.are_required() && !app.storage.store.has_keys().await.map_err(CliError::failed)? {
        tracing::warn!("requests need a key, and there is none: make one with `weightpress keys create --name NAME`");
    }
    if !keys.are_required() && !address.ip().is_loopback() {
        tracing::warn!("no keys are asked for: whoever reaches {address} may do everything");
    }
    Ok(())
}

/// Runs `work`, and leaves behind what cannot be cut short once it is done: the process is about to end.
pub(super) fn block_on(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = Runtime::new().map_err(CliError::failed)?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    trace::shutdown();
    outcome
}

/// The signals that end the service.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over from the default, which is to die.
    pub(super) fn listen() -> Result<Self, CliError> {
        let on = |kind| signal(kind).map_err(CliError::failed);
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Waits for the first one; a second one ends the process at once.
    pub(super) async fn shutdown(mut self) {
        self.next().await;
        tracing::info!("shutting down; a second signal exits at once");
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(1);
        });
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
