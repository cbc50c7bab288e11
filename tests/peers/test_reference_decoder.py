"""The reference decoder, written from docs/format.md alone, against the program: every codec, on a real layer.

`WEIGHTPRESS_BIN` names the built program, by default target/release/weightpress.
"""

import hashlib
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import reference_decoder

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", ROOT / "target" / "release" / "weightpress")


CODECS = {"dense": 0, "csr": 1, "csc": 2, "index_map": 3, "ham": 4, "sham": 5, "cser": 6, "rans": 7, "mix": 8, "delta": 9, "pco": 10}


def run(*arguments):
    result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def read_safetensors(path):
    """Name -> (type, shape, bytes): eight lines, so that no library stands between the two decoders."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    start = 8 + length
    bounds = lambda entry: slice(start + entry["data_offsets"][0], start + entry["data_offsets"][1])
    return {name: (e["dtype"], tuple(e["shape"]), data[bounds(e)]) for name, e in header.items()}


def decode_both_ways(model, recipe, folder):
    """Compresses `model`; what the reference decoder reads must be what the program exports, bit by bit."""
    (folder / "recipe.json").write_text(json.dumps(recipe))
    artifact, exported = folder / "artifact.safetensors", folder / "exported.safetensors"
    run("compress", model, "-o", artifact, "--recipe", folder / "recipe.json")
    run("export", artifact, "--format", "safetensors", "-o", exported)
    decoded, expected = reference_decoder.decode(artifact.read_bytes()), read_safetensors(exported)
    assert decoded.recipe == recipe
    assert decoded.source_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert decoded.weights
    for name, (dtype, bits) in decoded.weights.items():
        assert expected[name] == (dtype, bits.shape, np.ascontiguousarray(bits).tobytes()), name
    for name, (_, dims, data) in decoded.plain.items():
        assert expected[name][1:] == (tuple(dims), data), name
    return decoded


@pytest.fixture(scope="module")
def real_layer(tmp_path_factory):
    """The first dense layer of the base paper's pruned and shared VGG19, 512 x 4096, as its authors published it."""
    published = np.load(FIXTURES / "sham_layers" / "vgg_99-0-32-0-0.9955.npz")
    path = tmp_path_factory.mktemp("layer") / "vgg.npz"
    np.savez(path, layer=published["codebook"][published["indices"]])
    return path


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "mix"])
def test_every_codec_on_a_real_layer(codec, real_layer, tmp_path):
    decoded = decode_both_ways(real_layer, {"encode": {"codec": codec}}, tmp_path)
    assert list(decoded.codecs.values()) == [CODECS[codec]]
    _, bits = decoded.weights["layer"]
    assert bits.tobytes() == np.load(real_layer)["layer"].tobytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_codec_on_difficult_matrices(codec, dtype, tmp_path):
    random = np.random.default_rng(5)
    sparse = random.integers(-3, 4, (9, 300)) * (random.random((9, 300)) < 0.2)
    arrays = {
        "sparse": sparse,
        "no_zero": random.integers(1, 40, (70, 33)),
        "zeros": np.zeros((5, 7)),
        "constant": np.full((4, 9), 2.5),
        "one": np.ones((1, 1)),
        "signed_zeros": np.where(random.random((20, 20)) < 0.5, -0.0, 0.0),
        "three_values": random.choice([-1, 0, 1], (3, 5)),
        "cube": random.integers(0, 5, (6, 5, 4)) - 2,
        "many_values": random.choice(np.arange(-400, 400) / 4, (60, 70)),
    }
    np.savez(tmp_path / "arrays.npz", **{name: array.astype(dtype) for name, array in arrays.items()})
    decoded = decode_both_ways(tmp_path / "arrays.npz", {"encode": {"codec": codec}}, tmp_path)
    assert set(decoded.weights) <= set(arrays)
    for name, (_, bits) in decoded.weights.items():
        assert bits.tobytes() == arrays[name].astype(dtype).tobytes(), name


@pytest.mark.parametrize("outputs", [slice(2000, 2020), slice(0, 280, 4)])
def test_mix_on_a_part_of_a_real_layer(outputs, real_layer, tmp_path):
    """Some outputs alone, fewer or more than inputs: the decoder takes milliseconds a cell."""
    part = np.load(real_layer)["layer"][:96, outputs]
    np.savez(tmp_path / "part.npz", layer=part)
    decoded = decode_both_ways(tmp_path / "part.npz", {"encode": {"codec": "mix"}}, tmp_path)
    assert decoded.codecs == {"layer": CODECS["mix"]}
    assert decoded.weights["layer"][1].tobytes() == part.tobytes()


def test_mix_on_a_convolution(tmp_path):
    """Rows of a kernel's positions, of which neighbours are stored together."""
    random = np.random.default_rng(7)
    stored = (random.random((40, 8, 1)) < 0.3) & (random.random((40, 8, 9)) < [0.9, 0.1, 0.1] * 3)
    levels = random.integers(-6, 7, stored.shape) * stored
    np.savez(tmp_path / "conv.npz", conv=levels.reshape(40, 8, 3, 3).astype(np.float32))
    decode_both_ways(tmp_path / "conv.npz", {"encode": {"codec": "mix"}}, tmp_path)


@pytest.mark.parametrize("codec", ["dense", "csr", "csc", "pco"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_without_a_codebook(codec, dtype, tmp_path):
    values = np.random.default_rng(6).normal(size=(300, 400)).astype(dtype)
    np.savez(tmp_path / "raw.npz", values=values)
    recipe = {"prune": {"sparsity": 0.3}, "encode": {"codec": codec}}
    decoded = decode_both_ways(tmp_path / "raw.npz", recipe, tmp_path)
    assert len(np.unique(decoded.weights["values"][1])) > 65_536


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16", "int64"])
def test_binned_constants(dtype, tmp_path):
    values = np.random.default_rng(7).normal(size=(300, 1000)) * 50
    arrays = {"kept": values.astype(dtype), "rising": np.arange(5000).astype(dtype), "constant": np.full(70000, 3, dtype)}
    np.savez(tmp_path / "kept.npz", weight=values.astype("float32"), **arrays)
    recipe = {"layers": [{"match": name, "skip": True} for name in arrays], "encode": {"codec": "pco"}}
    if np.issubdtype(dtype, np.integer):
        recipe.pop("layers")
    decoded = decode_both_ways(tmp_path / "kept.npz", recipe, tmp_path)
    assert set(decoded.plain) == set(arrays)
    for name, (_, _, data) in decoded.plain.items():
        assert data == arrays[name].tobytes(), name
    assert "kept" in decoded.binned


def test_a_graph_with_unified_codebooks_and_halved_constants(tmp_path):
    recipe = {"prune": {"sparsity": 0.5}, "quantize": {"levels": 7, "codebook": "unified"}, "encode": {"plain": "f16"}}
    decoded = decode_both_ways(FIXTURES / "digits_mlp.onnx", recipe, tmp_path)
    assert len(decoded.weights) == 3 and len(decoded.graph) > 100
    values = np.unique(np.concatenate([bits.ravel() for _, bits in decoded.weights.values()]))
    assert len(values) <= 8, "one codebook for all"


@pytest.mark.parametrize("name", ["artifact_v1", "artifact_v1_binned"])
def test_the_golden_artifacts(name):
    golden = FIXTURES / "golden" / f"{name}.safetensors"
    decoded = reference_decoder.decode(golden.read_bytes())
    digest = hashlib.sha256()
    for name, (_, bits) in decoded.weights.items():
        digest.update(name.encode() + np.ascontiguousarray(bits).tobytes())
    for name, (_, _, data) in decoded.plain.items():
        digest.update(name.encode() + data)
    assert digest.hexdigest() == (FIXTURES / "golden" / "artifact_v1.sha256").read_text().strip()


def test_damage_is_noticed():
    data = bytearray((FIXTURES / "golden" / "artifact_v1.safetensors").read_bytes())
    data[-10] ^= 1
    with pytest.raises(reference_decoder.FormatError, match="checksum"):
        reference_decoder.decode(bytes(data))
