#!/usr/bin/env python3
"""Ten minutes of everything at once, and a thousand streams of events: resident memory must stay flat, and nothing may fail.

    tests/soak.py [--seconds 600] [--streams 1000]

Uploads and deletes models, compresses, evaluates, follows jobs, downloads, exports and predicts, from several clients. Memory is read
from Linux' /proc; it is flat when its greatest value in the last third is at most a tenth above that in the middle third. Needs the
program (WEIGHTPRESS_BIN, or target/release/weightpress) and Python 3.9."""

import argparse
import asyncio
import http.client
import json
import os
import pathlib
import re
import resource
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", str(ROOT / "target/release/weightpress"))
MODEL = (ROOT / "tests/fixtures/digits_mlp.onnx").read_bytes()
DATA = (ROOT / "tests/fixtures/digits_val.npz").read_bytes()
EVALUATION = {
    "metrics": ["accuracy"],
    "data": {"dataset": "digits", "inputs": {"input": {"array": "x"}}, "target": {"array": "y", "kind": "class"}},
}
INFER = json.dumps({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]})


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, method, path, body=None, expected=(200, 201, 202, 204), **headers):
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status in expected, f"{method} {path}: {answer.status} {content[:500]}"
        return content

    def job(self, spec):
        job = json.loads(self.ask("POST", "/api/v1/jobs", json.dumps(spec), Prefer="wait=60"))
        while job["status"] in ("queued", "running"):
            job = json.loads(self.ask("GET", job["urls"]["self"], Prefer="wait=60"))
        assert job["status"] == "succeeded", job
        return job


def manage(port, name, until):
    """The life of a model, again and again."""
    client = Client(port)
    while time.monotonic() < until:
        client.ask("POST", f"/api/v1/models?name={name}", MODEL)
        spec = {"kind": "compress", "model": name, "recipe": {"preset": "balanced"}, "make_default": True}
        job = client.job({**spec, "evaluation": EVALUATION})
        version = job["urls"]["version"]
        client.ask("GET", f"{version}/content")
        client.ask("GET", f"{version}/content?format=onnx")
        client.ask("GET", f"{job['urls']['self']}/events")
        client.ask("POST", f"/v2/models/{name}/infer", INFER)
        client.ask("DELETE", f"/api/v1/models/{name}")


def predict(port, until):
    client = Client(port)
    while time.monotonic() < until:
        client.ask("POST", "/v2/models/digits/infer", INFER)
        client.ask("GET", "/api/v1/models")
        client.ask("POST", "/v2/models/nothing/infer", INFER, expected=(404,))


async def follow(port, job, opened):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/v1/jobs/{job}/events HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n".encode())
    text = b""
    while b"event: " not in text:
        text += await reader.read(4096)
    assert text.startswith(b"HTTP/1.1 200"), text
    opened.release()
    while b"event: cancelled" not in text:
        chunk = await reader.read(4096)
        assert chunk, "a stream ended before its job"
        text += chunk
    writer.close()


async def streams(port, number):
    """Follows a job that waits behind a long one from many connections until it is cancelled."""
    client = Client(port)
    spec = {"kind": "benchmark", "model": "digits", "version": 0, "batch": [1], "seconds": 30}
    running = json.loads(client.ask("POST", "/api/v1/jobs", json.dumps(spec)))["id"]
    waiting = json.loads(client.ask("POST", "/api/v1/jobs", json.dumps(spec)))["id"]
    opened = asyncio.Semaphore(0)
    followers = [asyncio.create_task(follow(port, waiting, opened)) for _ in range(number)]
    for _ in followers:
        await asyncio.wait_for(opened.acquire(), 60)
    started = time.monotonic()
    client.ask("POST", f"/api/v1/jobs/{waiting}/cancel")
    await asyncio.wait_for(asyncio.gather(*followers), 60)
    print(f"{number} streams open; all told of the end within {time.monotonic() - started:.2f} s")
    client.ask("POST", f"/api/v1/jobs/{running}/cancel")


def resident_mib(process):
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--streams", type=int, default=1000)
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        command = [PROGRAM, "serve", "--data-dir", folder, "--listen", "127.0.0.1:0", "--log", "warn,weightpress::cli=info"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
        try:
            lines = iter(process.stderr.readline, "")
            port = int(next(found[1] for line in lines if (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line))))
            threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
            client = Client(port)
            client.ask("POST", "/api/v1/models?name=digits", MODEL)
            client.ask("POST", "/api/v1/datasets?name=digits", DATA)
            asyncio.run(streams(port, arguments.streams))
            soak(process, port, arguments.seconds)
        finally:
            process.terminate()
            assert process.wait(60) == 0, "the service did not end well"


def soak(process, port, seconds):
    until = time.monotonic() + seconds
    failed = []

    def guarded(work, *args):
        try:
            work(*args)
        except BaseException as error:  # noqa: BLE001 - reported below
            failed.append(error)

    work = [(manage, port, f"m{number}", until) for number in range(2)] + [(predict, port, until) for _ in range(2)]
    threads = [threading.Thread(target=guarded, args=args) for args in work]
    for thread in threads:
        thread.start()
    samples = []
    while time.monotonic() < until and not failed:
        time.sleep(min(1.0, seconds / 30))
        samples.append(resident_mib(process.pid))
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    third = len(samples) // 3
    middle, last = max(samples[third : 2 * third]), max(samples[2 * third :])
    print(f"{seconds:.0f} s of mixed load: resident memory {samples[0]:.0f} MiB at first, at most {middle:.0f} in the middle third "
          f"and {last:.0f} in the last")
    assert last <= 1.1 * middle, f"memory grows: {samples}"


if __name__ == "__main__":
    main()
