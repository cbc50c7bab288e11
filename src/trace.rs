//! Traces that cross processes: W3C trace contexts, and spans that are sent to a collector.
//!
//! A context comes with a request, is kept with the job that the request asks for, and goes on in the worker that takes the job.
//! With the feature `otlp`, and where the variable `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector, the spans of requests and jobs
//! are sent there over HTTP; without, contexts are only handed on and named in the log.
//!
//! Source: W3C Trace Context, <https://www.w3.org/TR/trace-context/>, version 00.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};
use tracing::Span;

/// The header that carries a context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

tokio::task_local! {
    /// That of the request that a task answers.
    static CURRENT: TraceParent;
}

/// A context: which trace, and which span of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

/// Text that holds no context of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct InvalidTraceParent;

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let is_id = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        match text.split('-').collect::<Vec<_>>()[..] {
            // A later version may say more behind what this one says.
            [version, trace, span, flags, ref more @ ..]
                if is_id(version, 2)
                    && version != "ff"
                    && (version != "00" || more.is_empty())
                    && is_id(trace, 32)
                    && is_id(span, 16)
                    && is_id(flags, 2)
                    && trace.bytes().any(|byte| byte != b'0')
                    && span.bytes().any(|byte| byte != b'0') =>
            {
                Ok(Self(format!("00-{trace}-{span}-{flags}")))
            }
            _ => Err(InvalidTraceParent),
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TraceParent {
    /// The context that a request came with; one that is none is as good as absent.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get(&TRACEPARENT)?.to_str().ok()?.parse().ok()
    }

    /// The context as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which trace it belongs to.
    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }

    /// Makes `span`, which has a field `trace_id`, a part of this trace. Returns the context of what happens inside: of the span
    /// itself where spans are sent.
    pub fn continue_in(&self, span: &Span) -> Self {
        span.record("trace_id", self.trace_id());
        otlp::adopt(span, self);
        Self::of_span(span).unwrap_or_else(|| self.clone())
    }

    /// The context of the request that this task answers.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok().or_else(|| Self::of_span(&Span::current()))
    }

    /// Awaits `work`, whose context this is.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// The context of a span, where spans are sent.
    fn of_span(span: &Span) -> Option<Self> {
        otlp::context_of(span)
    }
}

pub use otlp::{layer, shutdown};

#[cfg(feature = "otlp")]
mod otlp {
    //! Spans are sent.

    use std::collections::HashMap;
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use axum::http;
    use bytes::Bytes;
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_http::{HttpClient, HttpError, Request, Response};
    use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::{Span, Subscriber};
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_subscriber::Layer;
    use tracing_subscriber::registry::LookupSpan;

    use super::TraceParent;

    /// Time that a collector has to take a batch of spans.
    const SEND_TIME: Duration = Duration::from_secs(10);

    static PROVIDER: OnceLock<Mutex<SdkTracerProvider>> = OnceLock::new();

    /// Sends over the HTTP client that the program has anyway. Called on the thread of the exporter alone, which may block.
    #[derive(Debug)]
    struct Agent(ureq::Agent);

    #[async_trait::async_trait]
    impl HttpClient for Agent {
        async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            let (head, body) = request.into_parts();
            let mut answer = self.0.run(http::Request::from_parts(head, body.to_vec()))?;
            let bytes = answer.body_mut().read_to_vec()?;
            Ok(Response::builder().status(answer.status()).body(bytes.into())?)
        }
    }

    /// Sends spans to the collector that the environment names, if it names one.
    ///
    /// # Errors
    /// When the variables `OTEL_...` cannot be used.
    pub fn layer<S>() -> Result<Option<impl Layer<S>>, Box<dyn std::error::Error + Send + Sync>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let is_named = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if !is_named("OTEL_EXPORTER_OTLP_ENDPOINT") && !is_named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            return Ok(None);
        }
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(SEND_TIME)).build();
        let exporter = SpanExporter::builder().with_http().with_http_client(Agent(agent.into())).build()?;
        let mut resource = Resource::builder();
        if !is_named("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name("weightpress");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        let tracer = provider.tracer("weightpress");
        // A second log of the same process is refused before this matters.
        _ = PROVIDER.set(Mutex::new(provider));
        Ok(Some(tracing_opentelemetry::layer().with_tracer(tracer)))
    }

    /// Sends what is left. Blocks.
    pub fn shutdown() {
        if let Some(provider) = PROVIDER.get()
            && let Err(error) = provider.lock().unwrap_or_else(PoisonError::into_inner).shutdown()
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }

    /// Makes `span` a child of `parent`.
    pub(super) fn adopt(span: &Span, parent: &TraceParent) {
        let carrier = HashMap::from([("traceparent".to_owned(), parent.as_str().to_owned())]);
        // Nobody listens to a span that is disabled.
        _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    }

    /// The context of `span`.
    pub(super) fn context_of(span: &Span) -> Option<TraceParent> {
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
        carrier.get("traceparent")?.parse().ok()
    }
}

#[cfg(not(feature = "otlp"))]
mod otlp {
    //! Spans are not sent.

    use tracing::{Span, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::Identity;

    use super::TraceParent;

    /// Refuses to send spans, which this program was built without.
    ///
    /// # Errors
    /// Where the environment asks for it.
    pub fn layer<S: Subscriber>() -> Result<Option<impl Layer<S>>, Box<dyn std::error::Error + Send + Sync>> {
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
            if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
                return Err(format!("{name} needs the feature otlp, and this program was built without it").into());
            }
        }
        Ok(None::<Identity>)
    }

    /// Nothing is left.
    pub fn shutdown() {}

    pub(super) fn adopt(_: &Span, _: &TraceParent) {}

    pub(super) fn context_of(_: &Span) -> Option<TraceParent> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_those_of_version_00_and_what_later_ones_share_with_it() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceParent = text.parse().unwrap();
        assert_eq!((context.as_str(), context.trace_id()), (text, "4bf92f3577b34da6a3ce929d0e0e4736"));
        for later in [text.replacen("00", "01", 1), format!("{}-more", text.replacen("00", "cc", 1))] {
            assert_eq!(later.parse().as_ref(), Ok(&context), "{later}");
        }
        for wrong in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(InvalidTraceParent), "{wrong}");
        }
    }
}
