"""What the service answers is what api/openapi.yaml says, whatever it is asked: schemathesis asks it, with all of its checks."""

import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import PROGRAM, ROOT, post, serve
from onnx import TensorProto, helper, numpy_helper

EVERYTHING = "read,write,predict,admin,metrics"
EVALUATION = {"data": {"dataset": "digits", "inputs": {"input": {"array": "x"}}, "target": {"array": "y", "kind": "class"}}}


def model():
    """A model that the examples of predictions in the description are for: it takes `input` (N, 2)."""
    weight = numpy_helper.from_array(np.float32([[1, -1], [0.5, 2]]), "weight")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("input", "output")]
    node = helper.make_node("MatMul", ["input", "weight"], ["output"])
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def dataset():
    file = io.BytesIO()
    np.savez(file, x=np.float32([[1, 0], [0, 1]]), y=np.uint8([0, 1]))
    return file.getvalue()


@pytest.fixture
def locked(tmp_path):
    """Where a service runs that asks for keys, and a key that opens everything of it. It has a model, data and a job."""
    command = [PROGRAM, "keys", "create", "--name", "test", "--scopes", EVERYTHING, "--json", "--data-dir", tmp_path]
    key = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["key"]
    with serve(tmp_path, "--keys", "required") as url:
        authorization = {"Authorization": f"Bearer {key}"}
        post(f"{url}/api/v1/models?name=digits", model(), **authorization)
        post(f"{url}/api/v1/datasets?name=digits", dataset(), **authorization)
        job = {"kind": "compress", "model": "digits", "recipe": {}, "evaluation": EVALUATION}
        post(f"{url}/api/v1/jobs", json.dumps(job).encode(), Prefer="wait=60", **authorization)
        yield url, authorization


def test_answers_are_as_they_are_described(locked, tmp_path):
    url, authorization = locked
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    settings = ROOT / "tests" / "peers" / "schemathesis.toml"
    headers = [f"--header={name}: {value}" for name, value in authorization.items()]
    command = [program, "--config-file", settings, "run", ROOT / "api" / "openapi.yaml", "--url", url, *headers]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
