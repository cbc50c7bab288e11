//! `weightpress healthcheck`: exit status 0 when the service answers that it is ready.

use std::time::Duration;

use super::CliError;

/// Where the service listens.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the service.
    #[arg(long, env = "WEIGHTPRESS_LISTEN", default_value = "127.0.0.1:8080")]
    listen: String,
}

/// Asks `/readyz`.
pub fn run(args: Args) -> Result<(), CliError> {
    let url = format!("http://{}/readyz", reachable(&args.listen));
    // A proxy of the environment is not on the way to a neighbour.
    let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(2)));
    let agent: ureq::Agent = config.build().into();
    agent.get(&url).call().map(drop).map_err(|error| CliError::Failed(format!("{url}: {error}")))
}

/// The loopback address of the same port, where `listen` names every interface.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_wildcard_address_is_asked_on_loopback() {
        assert_eq!(super::reachable("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(super::reachable("[::]:80"), "[::1]:80");
        assert_eq!(super::reachable("127.0.0.1:1"), "127.0.0.1:1");
    }
}
