"""The container files are well formed, where no engine runs to try them: hadolint for the Dockerfile, the schemas of Kubernetes for
the manifests, and the promises of all of them read back (non-root, pinned images, settings and metrics that there are)."""

import json
import os
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
BINARY = os.environ.get("WEIGHTPRESS_BIN", str(ROOT / "target/release/weightpress"))
DEPLOY = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())
YAML = [path for path in DEPLOY if path.suffix in (".yaml", ".yml")] + [ROOT / "docker-compose.yml"]
KUBERNETES_VERSION = "1.34"


def name(path):
    return str(path.relative_to(ROOT))


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def manifests():
    """Each Kubernetes object under deploy/, those of operators too."""
    for folder in ("kubernetes", "kserve"):
        for path in sorted((ROOT / "deploy" / folder).glob("*.yaml")):
            yield from (pytest.param(document, id=f"{path.name}-{document['kind']}") for document in documents(path))


def containers():
    for manifest in (parameter.values[0] for parameter in manifests()):
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "ServingRuntime":
            pod = manifest["spec"]
        else:
            continue
        yield from (pytest.param(pod, container, id=manifest["metadata"]["name"]) for container in pod["containers"])


def settings_in(text):
    return set(re.findall(r"\bWEIGHTPRESS_[A-Z_]+\b", text))


def metrics_in(expression):
    """The names of metrics in an expression of Prometheus: its words with a prefix of ours, the parts of histograms taken off."""
    names = re.findall(r"\b((?:http|process|weightpress)_[a-z_]+)\b", re.sub(r'"[^"]*"', "", expression))
    return {re.sub(r"_(bucket|count|sum)$", "", found) for found in names}


@pytest.fixture(scope="module")
def described():
    """The metrics that docs/operations.md has a row for."""
    section = (ROOT / "docs/operations.md").read_text().split("\n## What to watch")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {found.split("{")[0] for row in rows for found in re.findall("`([^`]+)`", row)}


@pytest.fixture(scope="module")
def known_settings():
    text = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    return settings_in(text)


def test_the_dockerfile_passes_hadolint():
    hadolint = pathlib.Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_image_is_small_safe_and_checks_itself():
    final_stage = (ROOT / "Dockerfile").read_text().split("\nFROM ")[-1]
    assert "\nUSER 10001" in final_stage
    assert 'HEALTHCHECK' in final_stage and '"weightpress", "healthcheck"' in final_stage
    assert "\nVOLUME /data" in final_stage


def test_the_image_is_built_as_the_tests_build_the_program():
    # The same profile and the same lock file.
    assert "cargo build --release --locked" in (ROOT / "Dockerfile").read_text()
    assert "cargo test --release --locked" in (ROOT / ".ci" / "run").read_text()


def test_compose_starts_the_service_with_a_data_volume():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    service = compose["services"]["weightpress"]
    assert service["build"] == "."
    assert "profiles" not in service, "`docker compose up` starts it"
    assert "data:/data" in service["volumes"]
    assert "data" in compose["volumes"]
    for service_name, other in compose["services"].items():
        for volume in other.get("volumes", []):
            source = volume.split(":")[0]
            is_there = (ROOT / source).is_dir() if source.startswith("./") else source in compose["volumes"]
            assert is_there, f"{service_name}: {source}"


def test_compose_has_a_cluster_whose_parts_fit_together():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    cluster = {service: said for service, said in services.items() if "cluster" in said.get("profiles", [])}
    assert set(cluster) == {"postgres", "s3", "serve", "worker", "prometheus", "grafana"}
    serve, worker = cluster["serve"], cluster["worker"]
    assert serve["command"][:3] == ["serve", "--workers", "0"] and worker["command"] == ["worker"]
    assert worker["deploy"]["replicas"] == 2
    assert serve["environment"] == worker["environment"]
    store = serve["environment"]
    bucket = store["WEIGHTPRESS_BLOB_STORE"].removeprefix("s3://").split("/")[0]
    assert f"-bucket={bucket}" in cluster["s3"]["command"] and bucket in cluster["s3"]["healthcheck"]["test"][1]
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert store[key] == cluster["s3"]["environment"][key]
    for service in (serve, worker):
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert all(needed["condition"] == "service_healthy" for needed in service["depends_on"].values())
    for service, said in cluster.items():
        assert all(port.startswith("127.0.0.1:") for port in said.get("ports", [])), service


@pytest.mark.parametrize("path", YAML, ids=name)
def test_yaml_is_yaml_and_images_are_pinned(path):
    def look(node):
        if isinstance(node, dict):
            image = node.get("image")
            # What is built here has the tag that it is given here.
            if isinstance(image, str) and "build" not in node:
                tag = image.rsplit(":", 1)[-1]
                assert re.match(r"v?\d+", tag), f"{image} has no version"
            node = node.values()
        elif not isinstance(node, list):
            return
        for part in node:
            look(part)

    found = documents(path)
    assert found and all(isinstance(document, dict) for document in found)
    look(found)


@pytest.mark.parametrize("path", DEPLOY + [ROOT / "docker-compose.yml", ROOT / "Dockerfile"], ids=name)
def test_settings_that_are_named_exist(path, known_settings):
    assert settings_in(path.read_text()) <= known_settings


@pytest.mark.parametrize("manifest", list(manifests()))
def test_manifests_have_the_fields_that_they_need(manifest):
    assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "weightpress"
    kind, spec = manifest["kind"], manifest.get("spec")
    match manifest["apiVersion"]:
        case "keda.sh/v1alpha1":
            assert kind == "ScaledObject" and spec["scaleTargetRef"]["name"] == "weightpress-worker"
            trigger, = spec["triggers"]
            assert trigger["type"] == "prometheus" and float(trigger["metadata"]["threshold"]) > 0
            assert {"serverAddress", "query"} <= set(trigger["metadata"])
            assert spec["minReplicaCount"] <= spec["maxReplicaCount"]
        case "serving.kserve.io/v1alpha1":
            assert kind == "ServingRuntime" and spec["protocolVersions"] == ["v2"]
            assert [container["name"] for container in spec["containers"]] == ["kserve-container"]
        case "serving.kserve.io/v1beta1":
            runtime = documents(ROOT / "deploy/kserve/serving-runtime.yaml")[0]
            model = spec["predictor"]["model"]
            assert kind == "InferenceService" and model["runtime"] == runtime["metadata"]["name"]
            formats = [known["name"] for known in runtime["spec"]["supportedModelFormats"]]
            assert model["modelFormat"]["name"] in formats
        case _:
            kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize(("pod", "container"), list(containers()))
def test_containers_are_locked_down_and_probed(pod, container):
    own, of_pod = container["securityContext"], pod.get("securityContext", {})
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    both = of_pod | own
    assert both["runAsNonRoot"] and both["runAsUser"] == 10001
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
    # Where the image writes.
    assert "/data" in mounted.values()


def test_selectors_find_the_pods_that_are_meant():
    every = [parameter.values[0] for parameter in manifests()]
    pods = [manifest["spec"]["template"]["metadata"]["labels"] for manifest in every if manifest["kind"] == "Deployment"]
    deployments = {manifest["metadata"]["name"] for manifest in every if manifest["kind"] == "Deployment"}
    for manifest in every:
        spec = manifest.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector:
            labels = selector.get("matchLabels", selector).items()
            assert any(labels <= pod.items() for pod in pods), manifest["metadata"]["name"]
        if "scaleTargetRef" in spec:
            assert spec["scaleTargetRef"]["name"] in deployments


def test_alerts_are_about_metrics_that_are_described(described):
    groups = documents(ROOT / "deploy/prometheus/alerts.yml")[0]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert metrics_in(rule["expr"]) <= described, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert {"summary", "description"} <= set(rule["annotations"]), rule["alert"]
    scrapes = documents(ROOT / "deploy/prometheus/prometheus.yml")[0]
    assert scrapes["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"] for job in scrapes["scrape_configs"]}
    named = re.findall(r'job="([^"]+)"', "".join(rule["expr"] for rule in rules))
    assert set(named) <= jobs


def test_the_dashboard_shows_every_metric_that_is_described(described):
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/weightpress.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert set().union(*map(metrics_in, expressions)) == described
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels:
        assert panel["title"] and panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        assert 0 <= place["x"] and place["x"] + place["w"] <= 24, panel["title"]
    provider = documents(ROOT / "deploy/grafana/provisioning/dashboards/weightpress.yml")[0]["providers"][0]
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]


def test_the_queue_that_scales_workers_is_a_metric(described):
    trigger = documents(ROOT / "deploy/kubernetes/scaledobject.yaml")[0]["spec"]["triggers"][0]
    assert metrics_in(trigger["metadata"]["query"]) == {"weightpress_jobs"} <= described
