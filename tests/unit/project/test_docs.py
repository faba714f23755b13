"""The documents say what the code does: keys, defaults, links and examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pipelines.cli import reference
from pipelines.engine.tasks.catalog import BUILT_IN, get_config
from pipelines.serving.config import ServingConfig
from tests.support import ROOT

PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


ROW = re.compile(r"^\| `([a-z_.]+)` \| .*? \| (.*?) \| .+ \|$", re.MULTILINE)


def defaults(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return the default of every key of a config, by its dotted name."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        sections = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        for section in sections:
            found |= defaults(section, f"{prefix}{name}.")
        if field.annotation not in sections:
            found[prefix + name] = "required" if field.is_required() else field.default
    return found


def documented(text: str) -> dict[str, Any]:
    rows = ROW.findall(text)
    assert len({key for key, _ in rows}) == len(rows), "each key once"
    values = {key: value.strip("`").replace("\\|", "|") for key, value in rows}
    # A bar alone would begin a block of text.
    return {key: v if v == "|" else YAML(typ="safe").load(v) for key, v in values.items()}


def test_generated_tables_are_up_to_date(capsys):
    assert reference.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("task", BUILT_IN)
def test_every_key_is_documented_with_its_default(task):
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    sections = dict(
        re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    )
    # Some pipelines document a shared key again, because it means something else there.
    shown = documented(sections["Every task"]) | documented(sections[task])
    expected = defaults(get_config(task))
    del expected["task"]
    assert shown == expected


def test_every_key_of_the_server_is_documented_with_its_default():
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert documented(text) == defaults(ServingConfig)


@pytest.mark.parametrize("task", BUILT_IN)
def test_every_key_of_data_is_shown(task):
    shown = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    examples = [
        YAML(typ="safe").load(code)["data"]
        for code in re.findall(r"```yaml\n(.*?)```", shown, flags=re.DOTALL)
    ]
    config = get_config(task)
    keys = set(config.model_fields["data"].annotation.model_fields)
    example = next(data for data in examples if set(data) == keys)
    if "labels" in example:
        example["labels"] = {"0": "calm", "1": "angry"}
    config.model_validate({"data": example})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose)
    links += re.findall(r"CONFIG=(configs/[\w/.-]+\.yaml)", text)
    for link in links:
        if not link.startswith(("http:", "https:")):
            base = ROOT if link.startswith("configs/") else page.parent
            assert (base / link).exists(), link


def test_the_examples_of_the_chapter_hold():
    text = (ROOT / "docs" / "chapter.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(examples) == 2
    for code in examples:
        names: dict[str, Any] = {}
        *before, last = code.strip().splitlines()
        exec("\n".join(before), names)
        assert eval(last, names)


def test_every_config_opens_with_its_command():
    for file in sorted((ROOT / "configs").glob("*/*.yaml")):
        head = [line for line in file.read_text().splitlines() if line.startswith("#")]
        assert any(f"make train-{file.parent.name}" in line for line in head), file
        assert YAML(typ="safe").load(file.read_text())["name"] == file.stem


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made from their words."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_of_links_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        assert anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


def test_the_architecture_names_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:layers|engine|workflows|serving|cli|lab|demo)/[\w/.]*)`", text))
    assert len(named) > 20
    for name in named:
        assert any((ROOT / base / name).exists() for base in ("", "pipelines")), name


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
