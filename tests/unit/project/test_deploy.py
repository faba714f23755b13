"""The examples of docs/deploy.md: they can be read, and agree with the images and the server."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines.cli.main import make_parser
from pipelines.engine.config import loader as configs
from pipelines.serving.config import ServingConfig
from tests.support import ROOT
from tests.support.dockerfile import entry_point, environment, values
from tests.support.documents import blocks

PAGE = ROOT / "docs" / "deploy.md"
DOCKERFILE = ROOT / ".docker" / "unfold.Dockerfile"


def documents(key: str) -> list[dict[str, Any]]:
    """The YAML documents of the block that has a key at its top."""
    for code in blocks(PAGE, "yaml"):
        found = list(YAML(typ="safe").load_all(code))
        if key in found[0]:
            return found
    raise AssertionError(f"no example with {key}")


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """The service of the Compose file."""
    found: dict[str, Any] = documents("services")[0]["services"]["models"]
    return found


@pytest.fixture(scope="module")
def deployment() -> dict[str, Any]:
    return documents("apiVersion")[0]


@pytest.fixture(scope="module")
def pod(deployment) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def serving_config(arguments: list[str]) -> ServingConfig:
    """The config of a server that an image starts with these arguments."""
    words = [*entry_point(DOCKERFILE), *arguments]
    options = words[words.index("serve") :]
    args = make_parser().parse_args(options, argparse.Namespace(argv=options))
    keys = [f"host={args.host}", f"grpc_port={args.grpc_port}"]
    return configs.load(ROOT / "configs" / "serving.yaml", ServingConfig, [*args.set, *keys])


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


def test_an_image_listens_where_it_says():
    config = serving_config([])
    assert (config.host, config.port, config.grpc_port) == ("0.0.0.0", 8501, 8500)


def test_compose_runs_the_image_as_it_is_meant(service):
    config = serving_config(service["command"])
    assert config.allowed_hosts
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == [environment(DOCKERFILE)["HOME"]]
    assert seconds(service["stop_grace_period"]) > config.limits.answer_seconds
    ports = [port.split(":") for port in service["ports"]]
    assert [p[-1] for p in ports] == values(DOCKERFILE, "EXPOSE")[0].split()
    assert all(p[0] == "127.0.0.1" for p in ports), "a proxy with TLS is in front"
    (volume,) = service["volumes"]
    home = environment(DOCKERFILE)["UNFOLD_HOME"]
    assert volume.split(":")[1:] == [f"{home}/exports", "ro"]


def test_kubernetes_runs_the_image_as_it_is_meant(pod, deployment):
    (container,) = pod["containers"]
    config = serving_config(container["args"])
    assert pod["terminationGracePeriodSeconds"] > config.limits.answer_seconds
    assert str(pod["securityContext"]["runAsUser"]) in values(DOCKERFILE, "USER")[0].split(":")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounts == {"tmp": environment(DOCKERFILE)["HOME"]}
    assert {v["name"] for v in pod["volumes"]} == set(mounts)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels


def test_probes_and_services_use_ports_and_paths_that_there_are(pod, deployment):
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8501, "grpc": 8500}
    rest = (ROOT / "pipelines" / "serving" / "rest.py").read_text()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = container[probe]["httpGet"]
        assert get["port"] in ports
        assert f'"{get["path"]}"' in rest
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    service = documents("apiVersion")[1]
    assert {p["name"]: p["targetPort"] for p in service["spec"]["ports"]} == {n: n for n in ports}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels


def test_metrics_are_scraped_by_an_allowed_name(service):
    (job,) = documents("scrape_configs")[0]["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert port == "8501"
    assert host in serving_config(service["command"]).allowed_hosts


@pytest.fixture(scope="module")
def unit() -> str:
    (found,) = blocks(PAGE, "ini")
    return found


def test_the_systemd_unit_starts_the_server(unit):
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    _, *words = settings["ExecStart"].split()
    args = make_parser().parse_args(words, argparse.Namespace(argv=words))
    config = configs.load(ROOT / "configs" / "serving.yaml", ServingConfig, args.set)
    assert config.allowed_hosts == ["models.example.com"]
    assert int(settings["TimeoutStopSec"]) > config.limits.answer_seconds
    assert int(settings["LimitNOFILE"]) > config.limits.connections + 512


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_accepts_the_unit(unit, tmp_path):
    program = unit.partition("ExecStart=")[2].split()[0]
    file = tmp_path / "unfold.service"
    file.write_text(unit.replace(program, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True
    )
    about = [line for line in done.stderr.splitlines() if "unfold.service" in line]
    assert (done.returncode, about) == (0, [])
