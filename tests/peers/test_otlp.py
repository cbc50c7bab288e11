"""Spans are sent to a collector by OTLP over HTTP, and a job goes on with the trace of the request that asked for it.

WEIGHTPRESS_BIN names the program; it must have the feature `otlp`, or the test is skipped."""

import http.server
import json
import os
import pathlib
import subprocess
import threading
import urllib.request

import pytest

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", ROOT / "target" / "release" / "weightpress")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(http.server.BaseHTTPRequestHandler):
    """Keeps every span that it is sent."""

    spans = []

    def do_POST(self):
        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = trace_service.ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            assert names["service.name"] == "weightpress"
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_job_is_in_the_trace_of_its_request(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
        command = [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as program:
            lines = []
            for line in program.stderr:
                lines.append(line)
                if "listening on http://" in line:
                    break
            else:
                text = "".join(lines)
                pytest.skip("built without OTLP") if "needs the feature otlp" in text else pytest.fail(text)
            threading.Thread(target=program.stderr.read, daemon=True).start()
            url = line.split("listening on ")[1].split()[0]
            post(f"{url}/api/v1/models?name=digits", (FIXTURES / "digits_mlp.onnx").read_bytes())
            job = json.dumps({"kind": "compress", "model": "digits", "recipe": {}}).encode()
            post(f"{url}/api/v1/jobs", job, Prefer="wait=60", traceparent=f"00-{TRACE}-{PARENT}-01")
            # What is left is sent at the end.
            program.terminate()
            program.wait(60)
        collector.shutdown()
    spans = {}
    for span in Collector.spans:
        if span.trace_id.hex() == TRACE:
            spans[span.name] = span
    assert {"request", "job", "work", "settle"} <= spans.keys()
    assert spans["request"].parent_span_id.hex() == PARENT
    assert spans["job"].parent_span_id == spans["request"].span_id
    assert spans["work"].parent_span_id == spans["settle"].parent_span_id == spans["job"].span_id


def post(url, body, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        return json.load(answer)
