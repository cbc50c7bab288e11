"""The container files are well formed, where no engine runs to try them: hadolint for the Dockerfile, and the promises
of docker-compose.yml and the Dockerfile read back (non-root, health check by our own subcommand, data volume)."""

import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]


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
    assert "data:/data" in service["volumes"]
    assert "data" in compose["volumes"]
    for name, other in compose["services"].items():
        for volume in other.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], name
