"""The folders that images are built from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.workflows import image
from tests.support import ROOT
from tests.support.commands import unfold_in_process
from tests.support.dockerfile import entry_point, environment, health_check, instructions, values

NAMES = image.KINDS


def write_export(home: Path, name: str, *versions: int) -> None:
    for version in versions:
        folder = home / "exports" / name / str(version)
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_text(f"model {version}")
        (folder / "variables" / "variables.index").touch()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path))
    write_export(tmp_path, "Tickets", 2, 10)
    (tmp_path / "exports" / "Tickets" / ".half").mkdir()
    return tmp_path


@pytest.fixture(params=NAMES)
def staged(request, home) -> image.Context:
    return image.stage("Tickets", request.param)


def test_a_context_has_the_newest_version_only(staged):
    (model,) = staged.folder.glob("*/Tickets/*/saved_model.pb")
    assert model.read_text() == "model 10"
    assert (model.parent / "variables" / "variables.index").exists()
    assert staged.tag in ("tickets:10", "tickets:10-tensorflow-serving")
    assert staged.build_command("podman") == [
        "podman", "build", "--tag", staged.tag, str(staged.folder)
    ]  # fmt: skip


def test_a_context_is_small_and_readable(staged):
    files = [path for path in staged.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    assert not any("__pycache__" in path.parts for path in files)
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)
    top = {path.name for path in staged.folder.iterdir()} - {"Dockerfile"}
    copied = {word for v in values(staged.folder / "Dockerfile", "COPY") for word in v.split()[:-1]}
    assert top == copied, "everything in the context is copied, and everything copied is there"


def test_a_later_context_replaces_an_earlier_one(home):
    first = image.stage("Tickets", "unfold")
    (first.folder / "left over").touch()
    write_export(home, "Tickets", 11)
    second = image.stage("Tickets", "unfold")
    assert second.folder == first.folder
    assert not (second.folder / "left over").exists()
    assert [p.name for p in (second.folder / "exports" / "Tickets").iterdir()] == ["11"]


def test_tensorflow_serving_is_told_of_the_model(home):
    context = image.stage("Tickets", "tensorflow-serving")
    config = (context.folder / "models" / "models.config").read_text()
    assert 'name: "Tickets"' in config
    assert 'base_path: "/models/Tickets"' in config
    assert "--model_config_file=/models/models.config" in entry_point(context.folder / "Dockerfile")


# The rules of good Dockerfiles; `make lint` checks more of them with hadolint.


@pytest.fixture(params=NAMES)
def dockerfile(request) -> Path:
    return ROOT / ".docker" / f"{request.param}.Dockerfile"


def test_the_base_is_chosen_by_tag_and_digest(dockerfile):
    arguments = dict(value.split("=") for value in values(dockerfile, "ARG"))
    (base,) = values(dockerfile, "FROM")
    assert re.fullmatch(r"[\w/]+:\$\{BASE_TAG\}\$\{BASE_DIGEST:\+@\$\{BASE_DIGEST\}\}", base)
    assert re.match(r"\d+\.\d+", arguments["BASE_TAG"]), "not latest"
    assert arguments["BASE_DIGEST"] == ""


def test_a_user_without_rights_runs_the_server(dockerfile):
    names = [instruction.name for instruction in instructions(dockerfile)]
    (user,) = values(dockerfile, "USER")
    assert all(int(number) > 1000 for number in user.split(":")), "numbers: Kubernetes checks them"
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))


def test_no_shell_is_between_signals_and_the_server(dockerfile):
    assert entry_point(dockerfile)[0] in ("python", "tensorflow_model_server")
    assert health_check(dockerfile)[0] in ("python", "bash")


def test_nothing_comes_from_elsewhere_than_the_context(dockerfile):
    assert not values(dockerfile, "ADD")
    for value in values(dockerfile, "COPY"):
        assert ".." not in value
        assert not value.startswith(("/", "--from"))
    for value in values(dockerfile, "RUN"):
        assert not re.search(r"\b(curl|wget|git|sudo|apt|apt-get)\b", value)


def test_the_ports_are_those_that_are_exposed(dockerfile):
    assert values(dockerfile, "EXPOSE") == ["8501 8500"]
    assert "8501" in " ".join(health_check(dockerfile))


def test_python_writes_no_files_beside_the_code():
    found = environment(ROOT / ".docker" / "unfold.Dockerfile")
    assert found["PYTHONDONTWRITEBYTECODE"] == "1"
    assert found["PYTHONPATH"] == found["UNFOLD_HOME"] == "/srv/unfold"


# The command


def test_without_docker_the_context_stays(home, monkeypatch):
    monkeypatch.setenv("PATH", str(home))
    done = unfold_in_process("image", "Tickets")
    context = home / "build" / "images" / "Tickets-unfold"
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: neither docker nor podman is installed; where one of them is: "
        f"docker build --tag tickets:10 {context}"
    )
    assert (context / "Dockerfile").exists()


@pytest.mark.parametrize("tool", ["docker", "podman"])
def test_the_tool_that_is_installed_builds(tool, home, monkeypatch):
    monkeypatch.setenv("PATH", str(home / "bin"))
    (home / "bin").mkdir()
    builder = home / "bin" / tool
    builder.write_text(f'#!/bin/sh\necho "$@" > {home}/arguments\n')
    builder.chmod(0o755)
    done = unfold_in_process("image", "Tickets", "--kind", "tensorflow-serving")
    assert (done.returncode, done.stdout) == (0, "tickets:10-tensorflow-serving\n")
    context = home / "build" / "images" / "Tickets-tensorflow-serving"
    expected = f"build --tag tickets:10-tensorflow-serving {context}\n"
    assert (home / "arguments").read_text() == expected
    builder.write_text("#!/bin/sh\nexit 3\n")
    done = unfold_in_process("image", "Tickets")
    assert done.returncode == 2
    assert f"error: {tool} ended with exit code 3; to try again: {tool} build" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sentiment"], "no export of 'sentiment' in {home}/exports: unfold export sentiment"),
        (["letters"], "no export of 'letters' in {home}/exports; there are: Tickets"),
        (["../x"], "no export of '../x' in {home}/exports; there are: Tickets"),
        (["Tickets", "--kind", "nginx"], "argument --kind: invalid choice: 'nginx'"),
        ([], "the following arguments are required: NAME"),
    ],
)
def test_what_cannot_be_built_is_said(arguments, message, home):
    done = unfold_in_process("image", *arguments)
    assert done.returncode == 2
    assert f"error: {message.format(home=home)}" in done.stderr
    assert not (home / "build").exists()
