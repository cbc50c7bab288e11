"""Requests a second of the service over loopback: each request alone, and requests gathered into batches.

    python serving.py MODEL.onnx [--clients 16] [--samples 1] [--seconds 2] [--rounds 3] [--max-batch 32]
        [--max-delay-us 1000] [--levels 32] [--sparsity 0.9] [--baseline PROGRAM]

The model is compressed once; a service of each kind is started on it, and clients in processes of their own, one connection
each, ask them in turn. The answers are compared. With --baseline, another build of the program takes part, to see what a change
gains. The clients share the machine with the service, so figures are for comparison with each other.
Needs numpy and the program (WEIGHTPRESS_BIN, or target/release/weightpress)."""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", str(ROOT / "target" / "release" / "weightpress"))
TOLERANCE = 1e-4
INFER = "/v2/models/model/versions/1/infer"


@contextlib.contextmanager
def service(program, *settings):
    """Port of a service of its own, which ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "serve", "--data-dir", folder, "--listen", "127.0.0.1:0", *map(str, settings)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
        try:
            for line in process.stderr:
                if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                    break
            else:
                raise SystemExit("the service did not start")
            # What else it logs is read and dropped, so that its pipe never fills.
            drain = multiprocessing.Process(target=lambda: [None for _ in process.stderr], daemon=True)
            drain.start()
            yield int(found[1])
            drain.terminate()
        finally:
            process.terminate()
            process.wait()


def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    if response.status >= 300:
        raise SystemExit(f"{method} {path}: {response.status} {content.decode()}")
    return json.loads(content)


def prepare(port, model, arguments):
    """Uploads the model, compresses it as version 1, and returns its inputs."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    ask(connection, "POST", "/api/v1/models?name=model", pathlib.Path(model).read_bytes())
    recipe = {"prune": {"sparsity": arguments.sparsity}, "quantize": {"method": "cws", "levels": arguments.levels}}
    job = {"kind": "compress", "model": "model", "recipe": recipe}
    done = ask(connection, "POST", "/api/v1/jobs", json.dumps(job), Prefer="wait=60")
    while done["status"] in ("queued", "running"):
        done = ask(connection, "GET", done["urls"]["self"], Prefer="wait=60")
    if done["status"] != "succeeded":
        raise SystemExit(f"the compression failed: {done['failure']}")
    return ask(connection, "GET", "/v2/models/model")["inputs"]


def request_body(inputs, samples, seed):
    random = np.random.default_rng(seed)

    def tensor(port):
        shape = [samples] + [max(extent, 1) for extent in port["shape"][1:]]
        data = random.random(shape) if port["datatype"].startswith("FP") else random.integers(0, 2, shape)
        return {"name": port["name"], "datatype": port["datatype"], "shape": shape, "data": data.ravel().tolist()}

    return json.dumps({"inputs": [tensor(port) for port in inputs]})


def client(port, body, seconds, results):
    """Asks again and again, and puts the seconds of each answer into `results`."""
    connection, times, until = http.client.HTTPConnection("127.0.0.1", port), [], time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        ask(connection, "POST", INFER, body)
        times.append(time.perf_counter() - start)
    results.put(times)


def measure(port, bodies, seconds):
    """The seconds of every answer."""
    results = multiprocessing.Queue()
    clients = [multiprocessing.Process(target=client, args=(port, body, seconds, results)) for body in bodies]
    for process in clients:
        process.start()
    times = [results.get() for _ in clients]
    for process in clients:
        process.join()
    return np.concatenate(times)


def outputs(port, bodies):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    answers = [ask(connection, "POST", INFER, body)["outputs"] for body in bodies]
    return np.concatenate([output["data"] for answer in answers for output in answer])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--max-delay-us", type=int, default=1000)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--levels", type=int, default=32)
    parser.add_argument("--baseline", metavar="PROGRAM")
    arguments = parser.parse_args()
    batched = ["--max-batch", arguments.max_batch, "--max-delay-us", arguments.max_delay_us]
    kinds = {"alone": [PROGRAM], "batched": [PROGRAM, *batched]}
    if arguments.baseline:
        kinds = {"baseline": [arguments.baseline], **kinds}
    with contextlib.ExitStack() as stack:
        ports = {kind: stack.enter_context(service(*command)) for kind, command in kinds.items()}
        inputs = [prepare(port, arguments.model, arguments) for port in ports.values()][0]
        bodies = [request_body(inputs, arguments.samples, seed) for seed in range(arguments.clients)]
        answers = {kind: outputs(port, bodies) for kind, port in ports.items()}
        times = {kind: [] for kind in kinds}
        for _ in range(arguments.rounds):
            for kind, port in ports.items():
                times[kind].append(measure(port, bodies, arguments.seconds))
    first = next(iter(kinds))
    print(f"{'':10}{'requests/s':>12}{'p50 ms':>10}{'p95 ms':>10}{'gain':>8}")
    rates = {kind: max(len(round) for round in rounds) / arguments.seconds for kind, rounds in times.items()}
    for kind, rounds in times.items():
        p50, p95 = np.percentile(np.concatenate(rounds), [50, 95]) * 1e3
        print(f"{kind:10}{rates[kind]:12.0f}{p50:10.2f}{p95:10.2f}{rates[kind] / rates[first]:8.2f}")
        worst = np.abs(answers[kind] - answers[first]).max() / np.abs(answers[first]).max()
        assert worst <= TOLERANCE, f"{kind} answers otherwise: {worst}"


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
