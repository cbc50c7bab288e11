"""Sizes and speeds of mix and rANS beside NNCodec, zstd and xz, on the same indices, layer by layer.

    python coders.py [--sparsity 0.9] [--levels 31] FILE...

Takes ONNX networks, which are pruned per tensor and shared by CWS first, and npz layers with `indices` (inputs, outputs) and
`codebook`, which are taken as they are. All coders get the indices as the program stores them, hidden units of a network reordered.
Streams only: no codebooks, no container. Needs requirements.txt beside it (NNCodec
without its dependencies: `pip install --no-deps nncodec`) and the built program, `WEIGHTPRESS_BIN` or
target/release/weightpress. One thread everywhere; speeds are the best of three, ours as the program reports them: they
include reading, pruning and sharing.
"""

import argparse
import json
import lzma
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import zstandard
from nncodec.extensions import deepCABAC
from nncodec.nnc_core.hdsp.hdsp_tool import HDSP_OPTS_OFF

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", ROOT / "target" / "release" / "weightpress")
sys.path.insert(0, str(ROOT / "tests" / "peers"))

import reference_decoder  # noqa: E402

OURS = ["rans", "mix"]
OTHERS = ["nncodec", "zstd -19", "xz -9e"]
# From this size on a layer counts for the bar of single layers.
LARGE = 100_000


def compress(model, recipe, folder):
    """The program's report and the artifact."""
    (folder / "recipe.json").write_text(json.dumps(recipe))
    files = ["-o", folder / "artifact", "--recipe", folder / "recipe.json", "--report", folder / "report.json"]
    environment = {**os.environ, "RAYON_NUM_THREADS": "1"}
    subprocess.run([PROGRAM, "compress", model, *files], check=True, capture_output=True, env=environment)
    return json.loads((folder / "report.json").read_text())["report"], (folder / "artifact").read_bytes()


def as_model(path, folder):
    """A file that the program reads: npz layers become arrays of their values."""
    if path.suffix == ".onnx":
        return path
    layer = np.load(path)
    np.savez(folder / "layer.npz", **{path.stem: layer["codebook"][layer["indices"]]})
    return folder / "layer.npz"


def indices_of(values):
    """Symbols, outputs first, and the symbol of zero (of the value nearest to it where there is none)."""
    codebook, symbols = np.unique(values, return_inverse=True)
    return symbols.reshape(values.shape).astype(np.int32), int(np.abs(codebook).argmin()), len(codebook)


def nncodec(symbols, zero, levels):
    """With its defaults, called directly: codebook mode, 10 unary bins, optimised parameters, no row skipping."""
    encoder = deepCABAC.Encoder()
    encoder.initCtxModels(11, 1)
    shifted = np.ascontiguousarray(symbols - zero, np.int32)
    skipped = np.zeros(len(shifted), np.int32)
    encoder.encodeLayer(shifted, 0, 0, 1, 0, 0, skipped, *HDSP_OPTS_OFF(), levels, zero)
    return len(encoder.finish())


def measured(code):
    """The size that `code` returns, and the best of three times."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        size = code()
        best = min(best, time.perf_counter() - start)
    return size, best


def other_coders(symbols, zero, levels):
    data = symbols.astype(np.uint8 if levels <= 256 else np.uint16).tobytes()
    return {
        "nncodec": measured(lambda: nncodec(symbols, zero, levels)),
        "zstd -19": measured(lambda: len(zstandard.ZstdCompressor(level=19).compress(data))),
        "xz -9e": measured(lambda: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))),
    }


def compare(path, sparsity, levels):
    """Prints the table of one file."""
    print(f"\n{path.stem}\n{'layer':<28}{'weights':>10}" + "".join(f"{name:>10}" for name in OURS + OTHERS) + "  mix/nncodec")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = as_model(path, folder)
        lossy = {"prune": {"sparsity": sparsity}, "quantize": {"method": "cws", "levels": levels}}
        recipe = lossy if model == path else {}
        reports, seconds = {}, {}
        for codec in OURS:
            runs = [compress(model, {**recipe, "encode": {"codec": codec}}, folder) for _ in range(3)]
            reports[codec] = {layer["name"]: layer for layer in runs[0][0]["layers"]}
            seconds[codec] = min(report["seconds"] for report, _ in runs)
        _, artifact = compress(model, {**recipe, "encode": {"codec": "index_map"}}, folder)
        decoded = reference_decoder.decode(artifact)
        totals, times, weights = dict.fromkeys(OURS + OTHERS, 0), dict.fromkeys(OTHERS, 0.0), 0
        for layer, report in reports["mix"].items():
            float_type, bits = decoded.weights[layer]
            if float_type != "F32":
                continue
            values = np.ascontiguousarray(bits).view(np.float32).reshape(bits.shape)
            is_transposed = path.suffix == ".npz" or report["op"] == "MatMul"
            symbols, zero, used = indices_of(values.T if is_transposed else values)
            coded = other_coders(symbols, zero, used)
            sizes = {codec: reports[codec][layer]["stream_bytes"] for codec in OURS} | {n: s for n, (s, _) in coded.items()}
            weights += symbols.size
            for coder, size in sizes.items():
                totals[coder] += size
            for coder, (_, taken) in coded.items():
                times[coder] += taken
            is_over = symbols.size >= LARGE and sizes["mix"] > 0.97 * sizes["nncodec"]
            print_row(layer, symbols.size, sizes, "  above .97" if is_over else "")
        print_row("total", weights, totals, "  above 1.02" if totals["mix"] > 1.02 * totals["nncodec"] else "")
        speeds = {**{codec: weights / seconds[codec] for codec in OURS}, **{n: weights / t for n, t in times.items()}}
        print(f"{'encodes, M weights/s':<38}" + "".join(f"{speeds[name] / 1e6:>10.2f}" for name in OURS + OTHERS))


def print_row(name, weights, sizes, remark):
    row = f"{name[-27:]:<28}{weights:>10}" + "".join(f"{sizes[name]:>10}" for name in OURS + OTHERS)
    print(f"{row}  {sizes['mix'] / sizes['nncodec']:.4f}{remark}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--levels", type=int, default=31)
    chosen = parser.parse_args()
    for file in chosen.files:
        compare(file, chosen.sparsity, chosen.levels)
