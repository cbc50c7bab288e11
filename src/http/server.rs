//! The accept loop: connections in, a drained server out.
//!
//! While requests in flight are finished, the server still answers on new connections, so that whoever probes it is told
//! that it is going instead of finding nobody.
//!
//! `axum::serve` has no header-read timeout, so a client that dribbles its request line would hold a connection for
//! ever. This is the same loop on the same builder with the timeout set.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Time a client has to send the head of a request; also how long an idle connection is kept.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that requests in flight have to finish once shutdown begins.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that requests have which came during that, and are told that it is too late.
const LATE_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed accept. It fails when file descriptors run out, and failing again at once would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` resolves, then answers what is in flight and returns.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let connections = Connections::new();
    accept_until(&listener, &router, &connections, shutdown).await;
    let late = Connections::new();
    accept_until(&listener, &router, &late, connections.finish(DRAIN_TIMEOUT)).await;
    drop(listener);
    late.finish(LATE_DRAIN_TIMEOUT).await;
}

async fn accept_until(
    listener: &TcpListener,
    router: &Router,
    connections: &Connections,
    end: impl Future<Output = ()>,
) {
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, router.clone(), connections.subscribe()))),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Tells connections to finish, and when they have: each holds a receiver until it is done.
struct Connections(watch::Sender<bool>);

impl Connections {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Asks all to finish what is in flight, and waits until they have, but no longer than `timeout`.
    async fn finish(&self, timeout: Duration) {
        self.0.send_replace(true);
        if tokio::time::timeout(timeout, self.0.closed()).await.is_err() {
            tracing::warn!(connections = self.0.receiver_count(), "connections did not finish in time");
        }
    }
}

async fn connection(stream: TcpStream, router: Router, mut closing: watch::Receiver<bool>) {
    // Small answers go out at once instead of waiting for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|&closing| closing) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
