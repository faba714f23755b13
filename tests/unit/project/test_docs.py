"""The documents say what the code does: keys, defaults, links and examples."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pipelines.engine.tasks.catalog import NAMES, get_config
from pipelines.serving.config import ServingConfig
from tests.support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def defaults(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every key of a config, and what it is if left out."""
    found = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= defaults(kind, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.default
    return found


@pytest.mark.parametrize("task", NAMES)
def test_the_tables_of_keys_are_complete_and_true(task):
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    sections = dict(
        re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    )
    rows = dict(
        re.findall(
            r"^\| `([a-z_.]+)` \| (.*?) \|",
            sections["Every task"] + sections[task],
            flags=re.MULTILINE,
        )
    )
    for key, default in defaults(get_config(task)).items():
        if key == "task" or key.startswith("data."):
            continue
        assert YAML(typ="safe").load(rows.pop(key).strip("`")) == default, key
    assert not [key for key in rows if "." in key], "keys that there are not"


def test_the_table_of_serving_is_complete_and_true():
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*?) \|", text, flags=re.MULTILINE))
    assert {
        key: YAML(typ="safe").load(value.strip("`")) for key, value in rows.items()
    } == defaults(ServingConfig)


@pytest.mark.parametrize("task", NAMES)
def test_every_key_of_data_is_shown(task):
    shown = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    examples = [
        YAML(typ="safe").load(code)["data"]
        for code in re.findall(r"```yaml\n(.*?)```", shown, flags=re.DOTALL)
    ]
    config = get_config(task)
    keys = {k.removeprefix("data.") for k in defaults(config) if k.startswith("data.")}
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
