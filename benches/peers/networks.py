"""Latency of whole networks on compressed weights, beside ONNX Runtime on the dense ones: one thread each.

    python networks.py MODEL.onnx ... [--batch 1 32] [--sparsity 0.9] [--levels 32]

Every model is pruned and shared, exported again as a dense ONNX file, and both are timed on the same random inputs, in turn, so
that a busy machine is busy for both; the shortest time of all rounds counts. Integer inputs are drawn below --vocabulary.
Needs numpy and onnxruntime, the program (WEIGHTPRESS_BIN), and `cargo bench --bench networks --no-run` (NETWORKS_BIN: the file that
cargo names)."""

import argparse
import glob
import json
import os
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", ROOT / "target" / "release" / "weightpress")
RESIDENCIES = ["packed", "coded", "auto", "dense"]
ROUNDS = 3


def bench_program():
    found = [p for p in glob.glob(str(ROOT / "target" / "release" / "deps" / "networks-*")) if not p.endswith(".d")]
    return os.environ.get("NETWORKS_BIN") or max(found, key=os.path.getmtime)


def weightpress(*arguments):
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, capture_output=True)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def random_inputs(graph, batch, vocabulary):
    random = np.random.default_rng(0)

    def array(port):
        shape = [extent if isinstance(extent, int) else batch for extent in port.shape]
        if "int" in port.type:
            return random.integers(0, vocabulary, shape).astype(np.int64 if "64" in port.type else np.int32)
        return random.random(shape, dtype=np.float32)

    return {port.name: array(port) for port in graph.get_inputs()}


def runtime_us(graph, inputs, seconds=1.0):
    times, started = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - started < seconds:
        start = time.perf_counter()
        graph.run(None, inputs)
        times.append(time.perf_counter() - start)
    return min(times) * 1e6


def ours(artifact, inputs, residencies):
    environment = dict(os.environ, RAYON_NUM_THREADS="1")
    command = [bench_program(), artifact, inputs, *residencies]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line["residency"]: line for line in map(json.loads, lines)}


def error(found, expected):
    """Largest difference, relative to the largest value."""
    return max(np.abs(f - e).max() / np.abs(e).max() for f, e in zip(found, expected))


def measure(model, batch, options, folder):
    artifact, export, inputs = folder / "artifact", folder / "dense.onnx", folder / "inputs.npz"
    recipe = ["--prune", options.sparsity, "--quantize", "cws", "--levels", options.levels]
    weightpress("compress", model, "-o", artifact, *recipe)
    weightpress("export", artifact, "--format", "onnx", "-o", export)
    graph = session(export)
    arrays = random_inputs(graph, batch, options.vocabulary)
    np.savez(inputs, **arrays)
    theirs, mine = [], []
    for _ in range(ROUNDS):
        theirs.append(runtime_us(graph, arrays))
        mine.append(ours(artifact, inputs, RESIDENCIES))
    expected = graph.run(None, arrays)
    row = {"network": pathlib.Path(model).stem, "batch": batch, "onnxruntime us": min(theirs)}
    for residency in RESIDENCIES:
        answer = folder / "answer.npz"
        weightpress("predict", artifact, "--input", inputs, "-o", answer, "--residency", residency)
        with np.load(answer) as arrays_found:
            found = [arrays_found[output.name] for output in graph.get_outputs()]
        least = min(round[residency]["least_us"] for round in mine)
        row[residency] = (least, least / min(theirs), mine[-1][residency]["weights_resident_bytes"], error(found, expected))
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--sparsity", default="0.9")
    parser.add_argument("--levels", default="32")
    parser.add_argument("--vocabulary", type=int, default=25)
    options = parser.parse_args()
    print("network            batch  residency      time us  / ONNX Runtime  / dense  resident bytes    error")
    for model in options.models:
        for batch in options.batch:
            with tempfile.TemporaryDirectory() as folder:
                row = measure(model, batch, options, pathlib.Path(folder))
            print(f"{row['network']:18} {batch:5}  onnxruntime {row['onnxruntime us']:10.1f}")
            dense = row["dense"][0]
            for residency in RESIDENCIES:
                us, ratio, held, worst = row[residency]
                print(f"{'':25} {residency:11} {us:10.1f} {ratio:15.3f} {us / dense:8.3f} {held:15,} {worst:8.1e}")


if __name__ == "__main__":
    main()
