"""README and docs, followed as a reader would: on files with the names and columns they mention."""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT, lines, pairs, prices, reviews
from tests.support.commands import ok, unfold
from tests.support.documents import Command, blocks, commands, unfold_arguments
from tests.support.servers import Server, serving
from tests.support.trained import Trained

README = ROOT / "README.md"
#: What makes a training short, whatever the page says.
SMALL = {
    "sentiment": [s for s in reviews.SMALL if not s.startswith(("data.where", "data.labels"))],
    "generation": [s for s in lines.SMALL if not s.startswith("sampling.prompts")],
    "translation": pairs.SMALL,
    "forecasting": ["model.history=20", "model.horizon=3", "model.units=[8]", "train.epochs=2"],
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that README's own-data commands name."""
    reviews.write_reviews(tmp_path / "reviews.csv")
    with (tmp_path / "reviews.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "tickets.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["message", "team"], *([row["text"], row["label"]] for row in rows)]
        )
    (tmp_path / "letters").mkdir()
    corpus = [
        json.loads(line)["text"] for line in lines.write_lines(tmp_path).read_text().splitlines()
    ]
    for i in range(0, len(corpus), 20):
        (tmp_path / "letters" / f"{i}.txt").write_text("\n".join(corpus[i : i + 20]))
    pairs.write_pairs(tmp_path)
    sides = ((tmp_path / f"pairs.{side}").read_text().splitlines() for side in ("en", "de"))
    rows_of_pairs = ["\t".join(pair) for pair in zip(*sides, strict=True)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["input\toutput", *rows_of_pairs]) + "\n")
    prices.write_prices(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own_data() -> Iterator[list[str]]:
    for command in commands():
        if command.page == "README.md" and any("CONFIG=" in word for word in command.words):
            yield list(command.words)


@pytest.mark.parametrize("words", list(own_data()), ids=lambda words: words[1])
def test_own_data_are_trained_on_as_shown(words, desk, environment):
    (arguments,) = unfold_arguments(Command("README.md", tuple(words)), environment)
    task = arguments[1]
    small = [a for pair in SMALL[task] for a in ("--set", pair)]
    result = ok(unfold(desk / "home", *arguments, *small, "--json"))
    assert result["scores"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("venv")
    (folder / "bin").mkdir()
    (folder / ".ready-cpu").touch()
    for name in ("unfold", "python"):
        (folder / "bin" / name).write_text("#!/bin/sh\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def forwards(trained_once, tmp_path_factory) -> Path:
    """A home with an export of a model that reads forwards only, as streaming needs it."""
    found: Trained = trained_once("sentiment")
    home = tmp_path_factory.mktemp("forwards")
    arguments = [*found.arguments, "--set", "model.bidirectional=false", "--set", "train.epochs=1"]
    ok(unfold(home, "train", "sentiment", "--json", *arguments))
    ok(unfold(home, "export", "sentiment", "--json"))
    return home


@pytest.fixture(scope="module")
def server(forwards: Path) -> Iterator[tuple[Server, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(forwards, f"grpc_port={port}") as started:
        yield started, port


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(code, names)
    return names


def at(server: tuple[Server, int], text: str) -> str:
    """A page's text with the addresses of a running server."""
    address = server[0].url.removeprefix("http://")
    return text.replace("127.0.0.1:8501", address).replace(
        "127.0.0.1:8500", f"127.0.0.1:{server[1]}"
    )


@pytest.mark.parametrize("page", ["README.md", "docs/explain.md", "docs/chapter.md"])
def test_the_layers_do_what_the_pages_show(page):
    x = np.random.default_rng(0).normal(size=(3, 12, 5)).astype("float32")
    for code in blocks(ROOT / page, "python"):
        run(code, x=x)


@pytest.mark.parametrize("page", ["docs/serving.md", "docs/streaming.md"])
def test_clients_do_what_the_pages_show(page, server, forwards, monkeypatch, capsys):
    monkeypatch.chdir(forwards)
    found = blocks(ROOT / page, "python")
    assert found
    for code in found:
        run(at(server, code))
    assert re.search("positive|negative", capsys.readouterr().out)


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_requests_are_answered_as_the_pages_show(page, server):
    shown = re.findall(r"curl -d '(\{.*?\})' (\S+)", (ROOT / page).read_text(encoding="utf-8"))
    assert shown
    for body, url in shown:
        path = at(server, url).removeprefix(server[0].url)
        answer = server[0].post(json.loads(body), path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["label"] in ("positive", "negative")
