"""A service that runs for clients of other programs. WEIGHTPRESS_BIN names the program."""

import contextlib
import json
import os
import pathlib
import subprocess
import threading
import urllib.request

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", ROOT / "target" / "release" / "weightpress")


@contextlib.contextmanager
def serve(folder, *flags):
    """Runs a service, with its data in `folder`, and says where."""
    command = [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as program:
        try:
            line = next(line for line in program.stderr if "listening on http://" in line)
            # The pipe must not fill up.
            threading.Thread(target=program.stderr.read, daemon=True).start()
            yield line.split("listening on ")[1].split()[0]
        finally:
            program.terminate()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Where a service runs with the model `digits`: version 0, and version 1, which is compressed."""
    with serve(tmp_path_factory.mktemp("data")) as url:
        upload_and_compress(url)
        yield url


def upload_and_compress(url):
    post(f"{url}/api/v1/models?name=digits", (FIXTURES / "digits_mlp.onnx").read_bytes())
    recipe = {"prune": {"sparsity": 0.3}, "quantize": {"method": "cws", "levels": 31}}
    job = json.dumps({"kind": "compress", "model": "digits", "recipe": recipe}).encode()
    assert post(f"{url}/api/v1/jobs", job, Prefer="wait=60")["status"] == "succeeded"


def post(url, body, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def digits():
    """Images (450, 64) from 0 to 1 and their labels (450,)."""
    with np.load(FIXTURES / "digits_val.npz") as arrays:
        return arrays["x"], arrays["y"]
