"""Blobs in an S3 store that is spoken to over HTTP, and processes that share nothing but it and the database.

WEIGHTPRESS_BIN names the program; it must have the feature `s3`, or the tests are skipped."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import threading
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", ROOT / "target" / "release" / "weightpress")
DIGITS = (FIXTURES / "digits_mlp.onnx").read_bytes()
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}

moto_server = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")


@pytest.fixture
def bucket():
    """A bucket of an S3 server of its own, and its endpoint."""
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    endpoint = "http://%s:%s" % server.get_host_and_port()
    client = boto3.resource(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    bucket = client.create_bucket(Bucket="weights")
    yield bucket, endpoint
    # The next server of this process would know them still.
    bucket.objects.all().delete()
    server.stop()


@contextlib.contextmanager
def program(command, endpoint, database, folder, ready):
    """A process with a folder of its own. Yields the rest of the line that says it is ready."""
    flags = ["--data-dir", folder, "--database-url", f"sqlite://{database}", "--blob-store", "s3://weights/wp"]
    environment = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}
    with subprocess.Popen([PROGRAM, *command, *flags], stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if ready in line:
                    break
            else:
                text = "".join(lines)
                pytest.skip("built without S3") if "needs the feature s3" in text else pytest.fail(text)
            # The pipe must not fill up.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield line.split(ready)[1].strip()
        finally:
            process.terminate()


def serve(endpoint, database, folder, *flags):
    return program(["serve", "--listen", "127.0.0.1:0", *flags], endpoint, database, folder, "listening on ")


def ask(url, body=None, method=None, **headers):
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "null")


def keys(bucket):
    return sorted(item.key for item in bucket.objects.filter(Prefix="wp/"))


def test_processes_that_share_a_bucket(bucket, tmp_path):
    bucket, endpoint = bucket
    database = tmp_path / "shared.db"
    digits = json.loads((FIXTURES / "digits_predictions.json").read_text())
    inputs = {"inputs": [{"name": "input", "shape": [3, 64], "datatype": "FP32", "data": digits["input"]}]}
    with serve(endpoint, database, tmp_path / "one", "--workers", "0") as url:
        ask(f"{url}/api/v1/models?name=digits", DIGITS)
        with program(["worker"], endpoint, database, tmp_path / "two", "waiting for jobs"):
            recipe = {"prune": {"sparsity": 0.3}, "quantize": {"method": "cws", "levels": 31}}
            job = json.dumps({"kind": "compress", "model": "digits", "recipe": recipe}).encode()
            assert ask(f"{url}/api/v1/jobs", job, Prefer="wait=60")["status"] == "succeeded"
        outputs = ask(f"{url}/v2/models/digits/versions/1/infer", json.dumps(inputs).encode())["outputs"]
        versions = ask(f"{url}/api/v1/models/digits")["versions"]
        expected = ["wp/owner", *sorted(f"wp/sha256/{v['sha256'][:2]}/{v['sha256']}" for v in versions)]
        assert keys(bucket) == expected
    # What a process keeps is a copy: without it nothing is lost.
    shutil.rmtree(tmp_path / "one")
    with serve(endpoint, database, tmp_path / "one") as url:
        again = ask(f"{url}/v2/models/digits/versions/1/infer", json.dumps(inputs).encode())["outputs"]
        assert again == outputs
        range_of = urllib.request.Request(f"{url}/api/v1/models/digits/versions/0/content", headers={"Range": "bytes=10-19"})
        with urllib.request.urlopen(range_of) as answer:
            assert answer.read() == DIGITS[10:20]
        ask(f"{url}/api/v1/models/digits", method="DELETE")
        assert keys(bucket) == ["wp/owner"]


def test_a_search_in_parallel_spreads_over_machines(bucket, tmp_path):
    bucket, endpoint = bucket
    database = tmp_path / "shared.db"
    part = lambda first: {"dataset": "digits", "range": [first, first + 150]}
    search = {
        "kind": "search", "model": "digits", "metric": "accuracy", "max_drop": 0.5, "parallel": 4,
        "data": {"train": part(0), "validation": part(150), "test": part(300)},
        "space": {"sparsity": [0.3, 0.5, 0.7], "levels": [3, 7], "exhaustive": True},
        # What was pruned alike is trained once, and shared anew by whoever comes by. A trial takes longer than a worker's look
        # at the queue, so neither machine can take all.
        "recipe": {"prune": {"sparsity": 0}, "quantize": {"levels": 7}, "finetune": {"epochs": 100, "batch": 8}},
    }
    with serve(endpoint, database, tmp_path / "one", "--workers", "0") as url:
        ask(f"{url}/api/v1/models?name=digits", DIGITS)
        ask(f"{url}/api/v1/datasets?name=digits", (FIXTURES / "digits_val.npz").read_bytes())
        with contextlib.ExitStack() as workers:
            for name in ["two", "three"]:
                worker = program(["worker", "--workers", "1"], endpoint, database, tmp_path / name, "waiting for jobs")
                workers.enter_context(worker)
            job = ask(f"{url}/api/v1/jobs", json.dumps(search).encode(), Prefer="wait=60")
        assert job["status"] == "succeeded", job
        trials = job["result"]["search"]["trials"]
        assert len(trials) == 6 and all(trial["outcome"]["state"] == "measured" for trial in trials), trials
        assert [trial["stage"] for trial in trials].count("shared") == 3
        jobs = ask(f"{url}/api/v1/jobs?parent={job['id']}")["items"]
        events = [ask(f"{url}/api/v1/jobs/{trial['id']}/events")["items"] for trial in jobs]
        makers = {event["data"]["worker"] for list_ in events for event in list_ if event["kind"] == "started"}
        assert len(makers) == 2, "both machines took trials"
        versions = ask(f"{url}/api/v1/models/digits")["versions"]
        stored = [key for key in keys(bucket) if "sha256" in key]
        assert len(stored) == len(versions) + 1, "the model's versions and the dataset"


def test_uploads_in_parts_and_imports(bucket, tmp_path):
    bucket, endpoint = bucket
    tus = {"Tus-Resumable": "1.0.0"}
    # More than one part of what the client sends at a time to the store.
    weights = os.urandom(24 << 20)
    header = json.dumps({"w": {"dtype": "F32", "shape": [6 << 20], "data_offsets": [0, len(weights)]}}).encode()
    file = len(header).to_bytes(8, "little") + header + weights
    with serve(endpoint, tmp_path / "shared.db", tmp_path / "one") as url:
        begin = urllib.request.Request(
            f"{url}/api/v1/uploads", b"", {**tus, "Upload-Length": str(len(file))}, method="POST"
        )
        with urllib.request.urlopen(begin) as answer:
            location = answer.headers["Location"]
        for first in range(0, len(file), 10 << 20):
            headers = {**tus, "Upload-Offset": str(first), "Content-Type": "application/offset+octet-stream"}
            ask(url + location, file[first : first + (10 << 20)], "PATCH", **headers)
        model = ask(f"{url}/api/v1/models?name=large&upload={location.split('/')[-1]}", b"")
        assert model["size_bytes"] == len(file)
        assert [key for key in keys(bucket) if "uploads" in key] == []

        bucket.put_object(Key="wp/imports/default/nets/digits.onnx", Body=DIGITS)
        bucket.put_object(Key="wp/imports/other/secret.onnx", Body=DIGITS)
        assert ask(f"{url}/api/v1/models?name=digits&import=nets/digits.onnx", b"")["size_bytes"] == len(DIGITS)
        for key in ["absent.onnx", "../other/secret.onnx", "%2e%2e/other/secret.onnx", "..%2Fother%2Fsecret.onnx"]:
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(f"{url}/api/v1/models?name=x&import={key}", b"")
            assert refused.value.code == 404
