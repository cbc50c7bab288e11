"""Predictions under load, in one run: Weightpress on compressed weights beside MLServer, which runs the upload in ONNX Runtime.

    python load.py MODEL.onnx [--connections 1,8,64] [--seconds 5] [--rounds 2] [--levels 32] [--sparsity 0.9]

The same JSON of the Open Inference Protocol, one sample a request, sent by `wrk` over loopback to both servers in turns; the best
round of each counts. MLServer is given a runtime of twenty lines and one worker process for each core but one. At the end: how long
the product itself takes (`weightpress bench`), to see what the service adds. Needs wrk, and numpy, mlserver with uvloop<0.22, and onnxruntime (pip), and
the program (WEIGHTPRESS_BIN, or target/release/weightpress)."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np

import serving

RUNTIME = '''
import numpy
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload):
        inputs = {tensor.name: NumpyCodec.decode_input(tensor).astype(numpy.float32) for tensor in payload.inputs}
        names = [output.name for output in self.session.get_outputs()]
        outputs = zip(names, self.session.run(names, inputs))
        encoded = [NumpyCodec.encode_output(name, array) for name, array in outputs]
        return InferenceResponse(model_name=self.name, outputs=encoded)
'''


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def mlserver(model):
    """Port of an MLServer with the model, which ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        ports = {"http_port": free_port(), "grpc_port": free_port(), "metrics_port": free_port()}
        workers = max(1, (os.cpu_count() or 1) - 1)
        settings = {"host": "127.0.0.1", "parallel_workers": workers, "debug": False, "access_log": False, **ports}
        parameters = {"uri": str(pathlib.Path(model).resolve())}
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(
            json.dumps({"name": "model", "implementation": "runtime.OnnxModel", "parameters": parameters})
        )
        (folder / "runtime.py").write_text(RUNTIME)
        program = pathlib.Path(sys.executable).with_name("mlserver")
        log = open(folder / "log", "w")
        process = subprocess.Popen([program, "start", str(folder)], cwd=folder, stdout=log, stderr=log)
        try:
            wait_until_ready(f"http://127.0.0.1:{ports['http_port']}/v2/models/model/ready", folder / "log")
            yield ports["http_port"]
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_ready(url, log):
    """Returns once the URL answers; a minute is long enough for a server that will."""
    for _ in range(240):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5)
            return
        time.sleep(0.25)
    raise SystemExit("MLServer was not ready in a minute: " + log.read_text()[-2000:])


def load(url, body, connections, seconds):
    """Requests a second, and p50 and p99 in milliseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = [==[{body}]==]\n')
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name, url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if found := re.search(r"Non-2xx or 3xx responses: (\d+)", said):
        raise SystemExit(f"{url}: {found[1]} requests failed")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    quantile = {
        percent: float(number) * units[unit]
        for percent, number, unit in re.findall(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s)$", said, re.M)
    }
    return rate, quantile["50"], quantile["99"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--connections", default="1,8,64")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--levels", type=int, default=32)
    parser.add_argument("--sparsity", type=float, default=0.9)
    arguments = parser.parse_args()
    with serving.service(serving.PROGRAM, "--log", "warn,weightpress::cli=info") as own, mlserver(arguments.model) as other:
        inputs = serving.prepare(own, arguments.model, arguments)
        random = np.random.default_rng(1)
        shapes = [[1] + [max(extent, 1) for extent in port["shape"][1:]] for port in inputs]
        tensors = [
            {"name": port["name"], "shape": shape, "datatype": "FP32", "data": np.round(random.random(np.prod(shape)), 4).tolist()}
            for port, shape in zip(inputs, shapes)
        ]
        body = json.dumps({"inputs": tensors})
        urls = {
            "weightpress": f"http://127.0.0.1:{own}{serving.INFER}",
            "mlserver": f"http://127.0.0.1:{other}/v2/models/model/infer",
        }
        print(f"{'connections':>11}  {'server':11}  {'requests/s':>10}  {'p50 ms':>8}  {'p99 ms':>8}")
        least = {}
        for connections in map(int, arguments.connections.split(",")):
            rounds = {name: [] for name in urls}
            for _ in range(arguments.rounds):
                for name, url in urls.items():
                    load(url, body, connections, 1)
                    rounds[name].append(load(url, body, connections, arguments.seconds))
            best = {name: max(measured) for name, measured in rounds.items()}
            for name, (rate, p50, p99) in best.items():
                print(f"{connections:11}  {name:11}  {rate:10.0f}  {p50:8.3f}  {p99:8.3f}")
            print(f"{'':11}  throughput {best['weightpress'][0] / best['mlserver'][0]:.2f} times that of MLServer", flush=True)
            least[connections] = best["weightpress"][1]
        with tempfile.NamedTemporaryFile(suffix=".wp") as file:
            content = f"http://127.0.0.1:{own}/api/v1/models/model/versions/1/content"
            file.write(urllib.request.urlopen(content).read())
            file.flush()
            timed = subprocess.run(
                [serving.PROGRAM, "bench", file.name, "--batch", "1", "--threads", "1", "--seconds", "1", "--json"], capture_output=True, text=True, check=True
            )
            product_ms = json.loads(timed.stdout)["contenders"][0]["timings"][0]["p50_ms"]
            added_ms = least[min(least)] - product_ms
            print(f"the product alone: p50 {product_ms:.3f} ms; the service adds {added_ms:.3f} ms at {min(least)} connection(s)")


if __name__ == "__main__":
    main()
