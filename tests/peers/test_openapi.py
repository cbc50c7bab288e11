"""Bodies that the service takes, and some that it refuses, against the schemas of api/openapi.yaml."""

import json
import pathlib

import jsonschema
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
COMPONENTS = yaml.safe_load((ROOT / "api" / "openapi.yaml").read_text())["components"]
EVALUATION = {"data": {"dataset": "digits", "inputs": {"input": {"array": "x"}}, "target": {"array": "y", "kind": "class"}}}


def faults(schema, body):
    document = {"$ref": f"#/components/schemas/{schema}", "components": COMPONENTS}
    return [error.message for error in jsonschema.Draft202012Validator(document).iter_errors(body)]


def compress(recipe, **members):
    return {"kind": "compress", "model": "digits", "recipe": recipe, **members}


def infer(data, **members):
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": data, **members}
    return {"inputs": [tensor]}


TAKEN = [
    ("JobSpec", compress({})),
    ("JobSpec", compress({"prune": None, "quantize": "none"})),
    ("JobSpec", compress({"prune": {"sparsity": 0.9, "scope": "global"}, "quantize": {"method": "cws", "levels": 32}})),
    ("JobSpec", compress({"by_op": {"Conv": {"prune": "none"}}, "layers": [{"match": "w*", "quantize": None}]})),
    ("JobSpec", compress({"preset": "balanced", "encode": {"codec": "auto"}}, evaluation=EVALUATION, priority=3)),
    ("JobSpec", compress({}, metadata={"git/sha": "a1b2", "note": ""})),
    ("JobSpec", {"kind": "evaluate", "model": "digits", "version": 1, "evaluation": EVALUATION}),
    ("ModelPatch", {"metadata": {"run": "7", "stage": None}}),
    ("ModelPatch", {"default_version": 1, "metadata": None}),
    ("JobSpec", {"kind": "benchmark", "model": "digits", "batch": [1, 32]}),
    ("InferRequest", infer([1, 2.5, -3, 4e9])),
    ("InferRequest", infer([[1, 2], [3, 4]])),
    ("InferRequest", infer([[True, False], [False, True]], datatype="BOOL")),
    ("InferRequest", {**infer([[[0.5]]]), "id": "7", "outputs": [{"name": "y"}]}),
]
REFUSED = [
    ("JobSpec", compress({"purne": {}})),
    ("JobSpec", compress({"prune": "off"})),
    ("JobSpec", compress({"prune": {"sparsity": 1}})),
    ("JobSpec", compress({}, recipes={})),
    ("JobSpec", compress({}, metadata={"a b": "v"})),
    ("JobSpec", compress({}, metadata={"run": 7})),
    ("JobSpec", {"kind": "explode", "model": "digits"}),
    ("ModelPatch", {"default_version": None}),
    ("JobSpec", {"model": "digits", "recipe": {}}),
    ("InferRequest", infer(["one"])),
    ("InferRequest", infer({"0": 1})),
    ("InferRequest", {"inputs": [{"name": "x"}]}),
]


@pytest.mark.parametrize("schema, body", TAKEN)
def test_bodies_that_are_taken_are_described(schema, body):
    assert faults(schema, body) == []


@pytest.mark.parametrize("schema, body", REFUSED)
def test_bodies_that_are_refused_are_not(schema, body):
    assert faults(schema, body)


@pytest.mark.parametrize("file, schema", [("job", "JobSpec"), ("infer", "InferRequest"), ("recipe", "Recipe")])
def test_the_examples_are_described(file, schema):
    assert faults(schema, json.loads((ROOT / "examples" / "mnist" / f"{file}.json").read_text())) == []
