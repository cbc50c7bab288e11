"""One network in every form: size of the file, quality, latency and memory, side by side in one run, one thread each.

    python compare.py MODEL.onnx DATA.npz [--map JSON] [--split test] [--recipe RECIPE.json] [--batch 1 32]

Rows are ONNX Runtime on the upload and on what its own dynamic quantisation to int8 makes of it, general compressors on the file, and the program
on version 0 and on the compressed version in each residency. --map is what `weightpress evaluate --data-map` takes: inputs with
`array`, `scale` and `offset`, and the target. Quality is the accuracy of a target of kind `class`, and the mean squared error of one of kind
`value`. Latencies are the shortest of all rounds, in turns. Needs requirements.txt beside it, the built program (WEIGHTPRESS_BIN)
and `cargo bench --bench networks --no-run`."""

import argparse
import json
import lzma
import pathlib
import subprocess
import tempfile

import networks
import numpy as np
import zstandard
from onnxruntime.quantization import QuantType, quantize_dynamic

ROUNDS = 3
SPLITS = {"train": 0, "validation": 1, "test": 2}


def samples(arrays, mapping, split):
    """The graph's inputs and the target, of one split."""
    first = next(iter(mapping["inputs"].values()))["array"]
    kept = arrays["split"] == SPLITS[split] if split and "split" in arrays else np.ones(len(arrays[first]), bool)

    def values(entry):
        array = arrays[entry["array"]][kept]
        scaled = "scale" in entry or "offset" in entry
        return (array.astype(np.float32) * entry.get("scale", 1) + entry.get("offset", 0)).astype(np.float32) if scaled else array

    return {name: values(entry) for name, entry in mapping["inputs"].items()}, arrays[mapping["target"]["array"]][kept]


def as_inputs(graph, data):
    """Arrays of the types and shapes that the graph reads."""
    types = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}

    def shaped(port):
        array = data[port.name].astype(types[port.type])
        fixed = [extent for extent in port.shape[1:] if isinstance(extent, int)]
        return array.reshape(len(array), *fixed) if len(fixed) == len(port.shape) - 1 else array

    return {port.name: shaped(port) for port in graph.get_inputs()}


def quality(graph, data, target, kind, batch=256):
    inputs = as_inputs(graph, data)
    parts = range(0, len(target), batch)
    outputs = np.concatenate([graph.run(None, {n: a[i : i + batch] for n, a in inputs.items()})[0] for i in parts])
    if kind == "class":
        return float((outputs.argmax(1) == target.ravel()).mean())
    return float(((outputs.ravel() - target.ravel()) ** 2).mean())


def our_quality(path, options, residency, kind):
    arguments = [networks.PROGRAM, "evaluate", path, "--data", options.data, "--data-map", options.map, "--json"]
    arguments += ["--split", options.split] if options.split else []
    arguments += ["--residency", residency] if residency else []
    result = subprocess.run([str(a) for a in arguments], check=True, capture_output=True, text=True)
    metric = "accuracy" if kind == "class" else "mse"
    return next(row["value"] for row in json.loads(result.stdout)["metrics"] if row["metric"] == metric)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--map", required=True)
    parser.add_argument("--split", choices=list(SPLITS))
    parser.add_argument("--recipe", type=pathlib.Path)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    options = parser.parse_args()
    mapping = json.loads(options.map)
    kind = mapping["target"].get("kind", "value")
    data, target = samples(np.load(options.data), mapping, options.split)
    upload = options.model.read_bytes()

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        artifact, unpruned, int8 = folder / "artifact", folder / "lossless", folder / "int8.onnx"
        recipe = ["--recipe", options.recipe] if options.recipe else ["--prune", ".5", "--quantize", "cws", "--levels", "31"]
        networks.weightpress("compress", options.model, "-o", artifact, *recipe)
        networks.weightpress("compress", options.model, "-o", unpruned, "--prune", "none", "--quantize", "none")
        quantize_dynamic(options.model, int8, weight_type=QuantType.QInt8)
        runtimes = {"onnxruntime": networks.session(options.model), "onnxruntime int8": networks.session(int8)}

        times, memory = {}, {}
        for batch in options.batch:
            inputs = as_inputs(runtimes["onnxruntime"], {name: array[:batch] for name, array in data.items()})
            np.savez(folder / "inputs.npz", **inputs)
            for _ in range(ROUNDS):
                measured = {row: networks.runtime_us(graph, inputs) for row, graph in runtimes.items()}
                version0 = networks.ours(unpruned, folder / "inputs.npz", ["dense"])["dense"]
                ours = networks.ours(artifact, folder / "inputs.npz", networks.RESIDENCIES)
                for row, line in {"weightpress version 0": version0, **{f"weightpress {r}": l for r, l in ours.items()}}.items():
                    measured[row], memory[row] = line["least_us"], line["weights_resident_bytes"]
                for row, us in measured.items():
                    times[row, batch] = min(us, times.get((row, batch), us))

        sizes = {"onnxruntime": len(upload), "onnxruntime int8": int8.stat().st_size, "weightpress version 0": len(upload)}
        sizes |= {"zstd -19": len(zstandard.ZstdCompressor(19).compress(upload))}
        sizes |= {"xz -9e": len(lzma.compress(upload, preset=9 | lzma.PRESET_EXTREME))}
        sizes |= {"weightpress lossless": unpruned.stat().st_size}
        sizes |= {f"weightpress {residency}": artifact.stat().st_size for residency in networks.RESIDENCIES}
        good = {row: quality(graph, data, target, kind) for row, graph in runtimes.items()}
        good["weightpress version 0"] = our_quality(options.model, options, None, kind)
        for residency in networks.RESIDENCIES:
            good[f"weightpress {residency}"] = our_quality(artifact, options, residency, kind)

    metric = "accuracy" if kind == "class" else "mse"
    heads = "".join(f"  {f'us, batch {batch}':>13}" for batch in options.batch)
    print(f"{options.model.stem}, {len(target)} samples\n{'':22} {'bytes':>10}  ratio  {metric:>8}{heads}  weights in memory")
    for row, size in sizes.items():
        cells = "".join(f"  {times[row, b]:13.1f}" if (row, b) in times else f"{'':15}" for b in options.batch)
        value = f"{good[row]:8.4f}" if row in good else " " * 8
        held = f"{memory[row]:17,}" if row in memory else ""
        print(f"{row:22} {size:10,} {len(upload) / size:6.1f}  {value}{cells}  {held}".rstrip())


if __name__ == "__main__":
    main()
