"""The client that inference servers are judged by, tritonclient[http], works against the program unchanged."""

import asyncio

import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

@pytest.fixture(scope="module")
def address(url):
    return url.removeprefix("http://")


@pytest.fixture
def client(address):
    with tritonclient.http.InferenceServerClient(address) as client:
        yield client


def infer(client, x, version="", **settings):
    tensor = tritonclient.http.InferInput("input", x.shape, "FP32")
    tensor.set_data_from_numpy(x, binary_data=False)
    return client.infer("digits", [tensor], model_version=version, **settings)


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("digits") and client.is_model_ready("digits", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "weightpress"
    model = client.get_model_metadata("digits")
    assert model["versions"] == ["0", "1"]
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 64]}]
    assert client.get_model_metadata("digits", "1")["outputs"][0]["name"] == "logits"


def test_predictions_of_the_upload(client, digits):
    x, y = digits
    wanted = [tritonclient.http.InferRequestedOutput("logits", binary_data=False)]
    result = infer(client, x, outputs=wanted, request_id="seven")
    assert result.get_response()["id"] == "seven"
    logits = result.as_numpy("logits")
    assert logits.shape == (450, 10) and logits.dtype == np.float32
    # By ONNX Runtime: 445 of 450.
    assert (logits.argmax(axis=1) == y).sum() == 445


def test_predictions_on_compressed_weights(client, digits):
    x, y = digits
    result = infer(client, x, version="1")
    response = result.get_response()
    assert response["model_version"] == "1" and response["parameters"]["residency"] == "auto"
    assert (result.as_numpy("logits").argmax(axis=1) == y).mean() > 0.95


def test_failures_reach_the_client(client, digits):
    x, _ = digits
    with pytest.raises(InferenceServerException, match="found 63"):
        infer(client, x[:, :63])
    with pytest.raises(InferenceServerException, match="no model nobody"):
        client.get_model_metadata("nobody")
    tensor = tritonclient.http.InferInput("input", [2, 64], "FP32")
    tensor.set_data_from_numpy(x[:1].repeat(2, axis=0), binary_data=True)
    tensor.set_shape([1, 64])
    with pytest.raises(InferenceServerException, match="512 bytes of binary data"):
        client.infer("digits", [tensor])


def test_binary_and_compressed_predictions_are_those_of_json(client, digits):
    x, _ = digits
    expected = infer(client, x, outputs=[tritonclient.http.InferRequestedOutput("logits", binary_data=False)])
    tensor = tritonclient.http.InferInput("input", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    for coding in (None, "gzip", "deflate"):
        settings = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        for outputs in (None, [tritonclient.http.InferRequestedOutput("logits")]):
            result = client.infer("digits", [tensor], outputs=outputs, **settings)
            assert np.allclose(result.as_numpy("logits"), expected.as_numpy("logits"), rtol=1e-5, atol=1e-5)


def test_extensions(client, digits):
    x, _ = digits
    assert client.get_model_config("digits")["input"][0]["data_type"] == "TYPE_FP32"
    index = client.get_model_repository_index()
    assert {"name": "digits", "version": "1", "state": "READY", "reason": ""} in index
    client.load_model("digits")
    before = client.get_inference_statistics("digits", "0")["model_stats"][0]["inference_count"]
    infer(client, x[:5], version="0")
    assert client.get_inference_statistics("digits", "0")["model_stats"][0]["inference_count"] == before + 5
    client.unload_model("digits")
    infer(client, x[:1])


def test_asyncio_client(address, digits):
    x, y = digits

    async def predict():
        async with tritonclient.http.aio.InferenceServerClient(address) as client:
            tensor = tritonclient.http.InferInput("input", x.shape, "FP32")
            tensor.set_data_from_numpy(x)
            return (await client.infer("digits", [tensor])).as_numpy("logits")

    assert (asyncio.run(predict()).argmax(axis=1) == y).sum() == 445
