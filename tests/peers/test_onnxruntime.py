"""Predictions on compressed weights equal those of ONNX Runtime on the exported model, and version 0 those on the upload.

WEIGHTPRESS_BIN names the program."""

import os
import pathlib
import subprocess

import numpy as np
import onnxruntime
import pytest

from make_models import MODELS, make

PROGRAM = os.environ.get(
    "WEIGHTPRESS_BIN", pathlib.Path(__file__).parents[2] / "target" / "release" / "weightpress"
)

# max |a - b| <= tolerance x max |b|: two orders of summation in f32; and the runtime rounds every intermediate value of
# a half-precision model to 11 bits, which predictions do not.
TOLERANCE = {"half_mlp": 4e-3, "half_lookup": 4e-3}
RECIPES = {
    "pruned-cws": ["--prune", "0.8", "--quantize", "cws", "--levels", "16"],
    "lossless-sham": ["--prune", "none", "--quantize", "none", "--encoding", "sham"],
    "lossless-ham": ["--prune", "none", "--quantize", "none", "--encoding", "ham"],
    "lossless-auto": ["--prune", "none", "--quantize", "none", "--encoding", "auto"],
}


@pytest.fixture(scope="module", params=MODELS)
def made(request, tmp_path_factory):
    """A model and its inputs."""
    return make(request.param, tmp_path_factory.mktemp(request.param))


def weightpress(*arguments):
    result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def predicted(file, inputs, out, *options):
    weightpress("predict", file, "--input", inputs, "-o", out, *options)
    with np.load(out) as arrays:
        return dict(arrays)


def judged(model, inputs):
    """What ONNX Runtime answers."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(inputs) as arrays:
        outputs = session.run(None, dict(arrays))
    return dict(zip((output.name for output in session.get_outputs()), outputs))


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype, name
        value = value.astype(np.float64)
        error = np.abs(found[name].astype(np.float64) - value).max()
        assert error <= tolerance * np.abs(value).max(), f"{name}: {error} of {np.abs(value).max()}"


def test_the_upload_itself_agrees(made, tmp_path):
    model, inputs = made
    found = predicted(model, inputs, tmp_path / "out.npz")
    assert_close(found, judged(model, inputs), TOLERANCE.get(model.stem, 1e-4))


@pytest.mark.parametrize("recipe", RECIPES)
def test_predictions_agree_with_the_export(made, recipe, tmp_path):
    model, inputs = made
    tolerance = TOLERANCE.get(model.stem, 1e-4)
    artifact, export = tmp_path / "artifact", tmp_path / "export.onnx"
    weightpress("compress", model, "-o", artifact, *RECIPES[recipe])
    weightpress("export", artifact, "--format", "onnx", "-o", export)
    expected = judged(export, inputs)
    for residency in ["packed", "coded", "dense", "auto"]:
        found = predicted(artifact, inputs, tmp_path / f"{residency}.npz", "--residency", residency)
        assert_close(found, expected, tolerance)
    if recipe.startswith("lossless"):
        assert_close(judged(model, inputs), expected, 0)


def test_rearranged_units_change_no_prediction(made, tmp_path):
    model, inputs = made
    expected, found = (tmp_path / f"rearranged-{flag}.onnx" for flag in ("false", "true"))
    for export in (expected, found):
        flag = export.stem.removeprefix("rearranged-")
        artifact = tmp_path / f"{flag}.artifact"
        flags = [part for option in ("--reorder", "--remove", "--merge") for part in (option, flag)]
        weightpress("compress", model, "-o", artifact, *RECIPES["pruned-cws"], *flags)
        weightpress("export", artifact, "--format", "onnx", "-o", export)
    assert_close(judged(found, inputs), judged(expected, inputs), TOLERANCE.get(model.stem, 1e-4))
