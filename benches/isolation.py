#!/usr/bin/env python3
"""What child processes cost: an upload and a prediction, in this process and in children, in turns of one run.

Usage: benches/isolation.py [PROGRAM] [MODEL.onnx]; the model takes one FP32 input. Prints medians in milliseconds."""

import http.client
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = sys.argv[1] if len(sys.argv) > 1 else ROOT / "target" / "release" / "weightpress"
MODEL = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "tests" / "fixtures" / "digits_mlp.onnx").read_bytes()
UPLOADS, PREDICTIONS, TURNS = 10, 200, 5


class Service:
    """A running service, and one connection to it."""

    def __init__(self, isolation, folder):
        command = [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, "--isolation", isolation]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        line = next(line for line in self.process.stderr if "listening on http://" in line)
        # The pipe must not fill up.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.connection = http.client.HTTPConnection(line.split("http://")[1].split()[0])
        self.uploads, self.predictions, self.models = [], [], 0
        self.post("/api/v1/models?name=served", MODEL)
        inputs = json.loads(self.get("/v2/models/served"))["inputs"][0]
        shape = [1 if extent < 0 else extent for extent in inputs["shape"]]
        elements = 1
        for extent in shape:
            elements *= extent
        tensor = {"name": inputs["name"], "shape": shape, "datatype": "FP32", "data": [0.5] * elements}
        self.request = json.dumps({"inputs": [tensor]})

    def get(self, path):
        self.connection.request("GET", path)
        return self.connection.getresponse().read()

    def post(self, path, body):
        began = time.perf_counter()
        self.connection.request("POST", path, body)
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status in (200, 201), text
        return (time.perf_counter() - began) * 1000

    def turn(self):
        for _ in range(UPLOADS):
            self.models += 1
            self.uploads.append(self.post(f"/api/v1/models?name=m{self.models}", MODEL))
        for _ in range(PREDICTIONS):
            self.predictions.append(self.post("/v2/models/served/infer", self.request))


def main():
    with tempfile.TemporaryDirectory() as folder:
        services = {name: Service(name, f"{folder}/{name}") for name in ("none", "process")}
        try:
            for _ in range(TURNS):
                for service in services.values():
                    service.turn()
            for name, service in services.items():
                upload, prediction = statistics.median(service.uploads), statistics.median(service.predictions)
                print(f"{name:8} upload {upload:7.2f} ms   prediction {prediction:7.3f} ms")
        finally:
            for service in services.values():
                service.process.terminate()


if __name__ == "__main__":
    main()
