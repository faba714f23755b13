"""Pipelines are found through entry points; errors in a registration name it and the remedy."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from pipelines.engine.core.errors import UserError
from pipelines.engine.tasks import catalog
from pipelines.engine.tasks.catalog import BUILT_IN, find_config, get_config, get_task, task_names
from tests.support import ROOT

CONFIG = """
from typing import ClassVar, Literal
from pipelines.engine.config.schema import Experiment, Score

class Config(Experiment):
    score: ClassVar[Score] = Score("accuracy", higher_is_better=True)
    task: Literal["{name}"] = "{name}"

CONFIG = Config
"""


def register(folder: Path, name: str, package: str, distribution: str = "other") -> None:
    """Write the metadata of an installed distribution that registers one pipeline."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{catalog.GROUP}]\n{name} = {package}\n")


def write_package(folder: Path, package: str, **modules: str) -> Path:
    """Write a package with these modules."""
    path = folder / package
    path.mkdir()
    for module, code in {"__init__": "", **modules}.items():
        (path / f"{module}.py").write_text(code)
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the module search path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_our_pipelines_are_registered_as_others_are():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"][catalog.GROUP]
    assert points == {name: f"pipelines.{name}" for name in BUILT_IN}


def test_our_pipelines_are_found_without_entry_points(monkeypatch):
    # Without the folder of installed distributions; those that are imported already stay.
    monkeypatch.setattr("sys.path", [])
    assert task_names() == BUILT_IN
    assert get_config("sentiment").model_fields["task"].default == "sentiment"


def test_another_pipeline_is_listed_after_ours(site):
    register(site, "apples", "outside_apples")
    write_package(site, "outside_apples", config=CONFIG.format(name="apples"))
    assert task_names() == (*BUILT_IN, "apples")
    assert get_config("apples").__module__ == "outside_apples.config"


def test_the_config_is_imported_without_the_task(site):
    register(site, "pears", "outside_pears")
    write_package(site, "outside_pears", config=CONFIG.format(name="pears"), task="1 / 0")
    get_config("pears")
    assert "outside_pears.task" not in sys.modules


def test_the_default_config_is_in_configs_or_in_the_package(site):
    register(site, "plums", "outside_plums")
    packaged = write_package(site, "outside_plums") / "default.yaml"
    packaged.write_text("task: plums\n")
    assert find_config("plums", None) == packaged
    own = Path("configs/plums/default.yaml")
    own.parent.mkdir(parents=True)
    own.write_text("task: plums\n")
    assert find_config("plums", None) == own
    assert find_config("plums", "x.yaml") == Path("x.yaml")


def test_two_distributions_with_one_name_are_an_error(site):
    register(site, "sentiment", "outside_sentiment")
    with pytest.raises(UserError) as error:
        task_names()
    for part in ("'sentiment'", "outside_sentiment", "pipelines.sentiment", "other", "uninstall"):
        assert part in str(error.value)


def test_the_same_entry_point_twice_is_no_error(site):
    register(site, "figs", "outside_figs", "one")
    register(site, "figs", "outside_figs", "two")
    assert task_names() == (*BUILT_IN, "figs")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (None, "ModuleNotFoundError"),
        ("import no_such_module", "no_such_module"),
        ("CONFIG =", "SyntaxError"),
        ("", "CONFIG"),
        ("CONFIG = 3", "not a subclass of Experiment"),
        (CONFIG.format(name="other"), "must default to"),
    ],
)
def test_a_package_that_cannot_be_used_is_one_clear_line(config, problem, site):
    name = f"nuts{abs(hash(config))}"
    register(site, name, f"outside_{name}")
    write_package(site, f"outside_{name}", **({} if config is None else {"config": config}))
    with pytest.raises(UserError) as error:
        get_config(name)
    message = str(error.value)
    assert "\n" not in message
    for part in (name, f"outside_{name}", problem, catalog.GROUP, "uninstall"):
        assert part in message


def test_a_task_that_is_no_task_is_an_error(site):
    register(site, "kiwis", "outside_kiwis")
    write_package(site, "outside_kiwis", task="TASK = object()")
    with pytest.raises(UserError, match="not a Task"):
        get_task("kiwis")


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(UserError) as error:
        get_config("sentimental")
    for name in ("'sentimental'", *BUILT_IN):
        assert name in str(error.value)
