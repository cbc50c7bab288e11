"""KServe's client for REST inference works against the program unchanged, by both of its protocols."""

import asyncio

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def ask(protocol, url, question, *arguments, **settings):
    """The answer to a `question` of the client, which knows asyncio alone."""

    async def call():
        async with InferenceRESTClient(RESTConfig(protocol=protocol)) as client:
            return await getattr(client, question)(url, *arguments, **settings)

    return asyncio.run(call())


def request(x, binary_data, outputs=None):
    tensor = InferInput("input", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary_data)
    return InferRequest(model_name="digits", infer_inputs=[tensor], request_id="seven", request_outputs=outputs)


def test_health(url):
    assert ask("v2", url, "is_server_live") and ask("v2", url, "is_server_ready")
    for protocol in ("v1", "v2"):
        assert ask(protocol, url, "is_model_ready", "digits")
    assert not ask("v2", url, "is_model_ready", "nobody")
    with pytest.raises(httpx.HTTPStatusError, match="404 Not Found"):
        ask("v1", url, "is_model_ready", "nobody")


@pytest.mark.parametrize("binary_data", [False, True])
@pytest.mark.parametrize("binary_output", [False, True])
def test_predictions_by_the_open_inference_protocol(url, digits, binary_data, binary_output):
    x, y = digits
    outputs = [RequestedOutput("logits", parameters={"binary_data": binary_output})]
    response = ask("v2", url, "infer", request(x, binary_data, outputs), model_name="digits")
    logits = response.outputs[0].as_numpy()
    assert (response.id, response.model_name, response.outputs[0].name) == ("seven", "digits", "logits")
    assert logits.shape == (450, 10) and logits.dtype == np.float32
    # By ONNX Runtime: 445 of 450.
    assert (logits.argmax(axis=1) == y).sum() == 445


def test_predictions_by_the_first_protocol(url, digits):
    x, y = digits
    expected = ask("v2", url, "infer", request(x, False), model_name="digits").outputs[0].as_numpy()
    rows = ask("v1", url, "infer", {"instances": x.tolist()}, model_name="digits")
    assert np.array_equal(np.float32(rows["predictions"]), expected)
    columns = ask("v1", url, "infer", {"inputs": {"input": x.tolist()}}, model_name="digits")
    assert np.array_equal(np.float32(columns["outputs"]), expected)
    compressed = ask("v1", url, "infer", {"instances": x.tolist()}, model_name="digits/versions/1")
    assert (np.argmax(compressed["predictions"], axis=1) == y).mean() > 0.95


def test_failures_reach_the_client(url, digits):
    x, _ = digits
    for model, x, status in (("digits", x[:, :63], 400), ("nobody", x, 404)):
        with pytest.raises(httpx.HTTPStatusError) as failure:
            ask("v2", url, "infer", request(x, False), model_name=model)
        assert failure.value.response.status_code == status
        with pytest.raises(httpx.HTTPStatusError) as failure:
            ask("v1", url, "infer", {"instances": x.tolist()}, model_name=model)
        assert failure.value.response.status_code == status
        assert failure.value.response.json()["error"]
