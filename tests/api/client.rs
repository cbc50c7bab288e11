//! An HTTP client for tests: every answer is returned, none is an error.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Request};
use ureq::{Agent, Body, SendBody};

/// Longer than anything a test waits for; a hang fails instead of hanging.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Speaks to the server at `base`.
#[derive(Clone)]
pub struct Client {
    pub base: String,
    agent: Agent,
    /// Sent with every request.
    key: Option<String>,
}

/// An answer, read in full.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(base: String) -> Self {
        let config = Agent::config_builder().proxy(None).http_status_as_error(false).timeout_global(Some(TIMEOUT));
        Self { base, agent: config.build().into(), key: None }
    }

    /// A client of the same server that sends `key`.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// Sends a request and returns the answer with its body unread. `None` for a request without a body.
    pub fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<SendBody>,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match body {
            Some(body) => self.agent.run(request.body(body).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        }
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let body = body.map(|bytes| SendBody::from_owned_reader(std::io::Cursor::new(bytes.to_vec())));
        let response =
            self.open(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let (head, body) = response.into_parts();
        let mut bytes = Vec::new();
        body.into_reader().read_to_end(&mut bytes).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body: bytes }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    pub fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.send("POST", path, &[], Some(body))
    }

    pub fn post_json(&self, path: &str, json: &Value) -> Answer {
        self.post(path, json.to_string().as_bytes())
    }

    /// Uploads `bytes` as the model `name`.
    pub fn upload_model(&self, name: &str, bytes: &[u8]) -> Answer {
        self.post(&format!("/api/v1/models?name={name}"), bytes)
    }

    /// Uploads `bytes` as the dataset `name`.
    pub fn upload_dataset(&self, name: &str, bytes: &[u8]) -> Answer {
        self.post(&format!("/api/v1/datasets?name={name}"), bytes)
    }

    /// Submits a job, which must be accepted, and waits for its end.
    pub fn run_job(&self, spec: &Value) -> Value {
        let job = self.send("POST", "/api/v1/jobs", &[("prefer", "wait=60")], Some(spec.to_string().as_bytes())).json();
        let id = job["id"].as_str().unwrap_or_else(|| panic!("not accepted: {job}")).to_owned();
        self.wait_for_job(&id)
    }

    /// The job `id` once it is finished.
    pub fn wait_for_job(&self, id: &str) -> Value {
        loop {
            let job =
                self.send("GET", &format!("/api/v1/jobs/{id}"), &[("prefer", "wait=60")], None).expect(200).json();
            if matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled")) {
                return job;
            }
        }
    }
}

impl Answer {
    /// The answer itself, whose status must be `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that the answer is a problem document of this status and code, complete and consistent, and that its
    /// detail names the fault.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str, fault: &str) {
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{problem}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:weightpress:problem:{code}"));
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(fault), "{fault:?} is not in {detail:?}");
    }
}
