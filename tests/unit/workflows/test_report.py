"""The report of a run: what it contains, and that it is one small, valid and safe page."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.engine.config import loader as configs
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_bytes, write_text
from pipelines.engine.runs.run import Run
from pipelines.engine.runs.tables import EXAMPLES, FLOW, LAYERS, write_table
from pipelines.sentiment.config import CONFIG
from pipelines.workflows import report
from tests.support import ROOT
from tests.support.html import Page

ARCHIVE = ROOT / "tests/fixtures/version-0.1.tar.xz"
#: Text that a page must not take for its own.
ODD = "<script>alert('1')</script>\"&amp;</td>"


def finished_run(home: Path, **info: Any) -> Run:
    """Write the folder of a finished run, with what a report reads."""
    run = Run(home / "runs" / "sentiment" / "20260501-120000-tiny-ab12")
    config = CONFIG.model_validate({"name": "tiny", "data": {"source": "mine.csv"}})
    write_text(run.folder / "config.yaml", configs.dump(config))
    given = {
        "status": "finished",
        "config_name": "tiny",
        "finished": "2026-05-01T12:01:00+00:00",
        "git_commit": "abc+",
        "versions": {"keras": "3.15.1"},
        "routes": {"recurrent_1": "by_hand (no GPU)"},
        "parameters": 1234,
        "latency_ms": 1.25,
        "data": {
            "fingerprint": "f1",
            "records": {"train": 80, "validation": 10, "test": 20},
            "labels": {"bad": 30, ODD: 50},
            "mine.csv": {
                "rows": 120, "unusable": {"no label": 2}, "repeated": 3,
                "first_unusable": [f"mine.csv:7: no label {ODD}"],
            },
        },
        "scores": {"accuracy": 0.75, "macro_f1": 0.71234567},
        "intervals": {"accuracy": (0.53, 0.89)},
        "baselines": {"most_frequent_class": 0.6},
        "limits": ["It knows 12 words."],
    }  # fmt: skip
    run.update(**given | info)
    run.write_history([{"loss": 0.7}, {"loss": 0.6}])
    write_table(run, "worst_mistakes", [["place", "text"], *([f"mine.csv:{i}", ODD * 9]
                                                             for i in range(30))])  # fmt: skip
    write_table(run, "per_kind", [["kind", "share"], ["a", 0.123456789], ["b", 2]])
    write_table(run, EXAMPLES, [["epoch", "text"], [1, "before"], [2, "after"]])
    write_table(run, FLOW, [["epoch", "layer"], [1, "recurrent_1"]])
    write_table(run, LAYERS, [["layer", "kind", "parameters"], ["V", "Dense", 1234]])
    for name in ("confusion_matrix", "learning_curves", FLOW, "explained_1", "zebra"):
        draw(run.folder / "figures" / f"{name}.png")
    write_text(run.folder / "figures" / "explained_1.html", "<!doctype html>")
    return run


def draw(path: Path, size: int = 20) -> None:
    """Write a picture that cannot be compressed."""
    pixels = np.random.default_rng(1).integers(0, 255, (size, size, 3), np.uint8)
    write_bytes(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def parsed(run: Run) -> Page:
    return Page(report.write(run, Console()).read_text(encoding="utf-8"))


def test_every_section_is_there_in_the_order_of_a_reader(home):
    page = parsed(finished_run(home))
    assert page.headings == [
        "Use it", "Limits", "Scores", "Results on the test records", "How it reads", "Data",
        "Training", "Model", "Train it again",
    ]  # fmt: skip
    text = "\n".join(page.texts)
    assert (
        "Test accuracy 0.75 (95 % interval 0.53 to 0.89) on 20 records; higher is better." in text
    )
    assert "The model cannot be told from the baseline, most frequent class (0.6)." in text
    for wanted in (
        "It knows 12 words.", "0.7123", "0.53 to 0.89", "no label: 2", "Macro F1", "after",
        "0.1235",
        "unfold predict sentiment --run 20260501-120000-tiny-ab12", "by_hand (no GPU)", "1,234",
        "source: mine.csv", "with changes that were not committed", "1.25 ms",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert "before" not in text


def test_tables_and_figures_of_an_evaluation_appear_by_themselves(home):
    page = parsed(finished_run(home))
    captions = [title["aria-label"] for title in page.all("div") if "aria-label" in title]
    assert captions == [
        "Test scores", "Beside the baselines, best first", "Worst mistakes", "Per kind",
        "Records by split", "Rows by source", "Training records by label", "Examples by epoch",
        "Layers",
    ]  # fmt: skip
    alts = [image["alt"] or "" for image in page.all("img")]
    assert [alt.partition(".")[0] for alt in alts] == [
        "Confusion matrix", "Zebra", "Explained 1", "Learning curves", "Gradient flow",
    ]  # fmt: skip
    assert "The first 10 of 30 rows; all are in" in "".join(page.texts)
    assert all(cell["scope"] == "col" for cell in page.all("th"))


def test_text_from_elsewhere_stays_text_and_nothing_is_loaded(home):
    run = finished_run(home, config_name=ODD, verdict=[ODD], limits=[ODD], machine=ODD)
    draw(run.folder / "figures" / f"{ODD.replace('/', '')}.png")
    write_table(run, f"t{ODD.replace('/', '')}", [[ODD], [ODD]])
    page = parsed(run)
    assert page.all("script") == []
    assert sum(ODD in text for text in page.texts) >= 8
    assert {a for a in page.addresses() if not a.startswith("data:")} == {
        "figures/explained_1.html"
    }
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_a_page_stays_small_and_names_what_is_left_out(home):
    run = finished_run(home)
    for i in range(20):
        draw(run.folder / "figures" / f"noise_{i:02}.png", 400)  # half a megabyte each
    write_text(run.folder / "figures" / "tune.svg", "<svg>" + " " * 400_000)
    write_text(run.folder / "figures" / "small.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
    path = report.write(run, Console())
    assert path.stat().st_size < 3_000_000
    page = Page(path.read_text(encoding="utf-8"))
    text = "".join(page.texts)
    assert "figures/tune.svg" in text
    assert "figures/noise_19.png" in text
    kinds = [(image["src"] or "").partition(";")[0] for image in page.all("img")]
    assert kinds.count("data:image/jpeg") > 5
    assert kinds.count("data:image/svg+xml") == 1


def test_a_part_that_cannot_be_made_costs_a_warning(home, capfd):
    run = finished_run(home)
    (run.folder / "figures" / "confusion_matrix.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (run.folder / "tables" / "per_kind.csv").write_bytes(b"\xff\xfe\xff")
    page = parsed(run)
    message = capfd.readouterr().err
    assert "warning: the report has no figure confusion_matrix: UnidentifiedImageError" in message
    assert "warning: the report has no table per_kind: UnicodeDecodeError" in message
    assert page.headings[-1] == "Train it again"
    assert "Worst mistakes" in page.texts


def test_a_report_that_cannot_be_written_costs_a_warning(home, capfd):
    run = finished_run(home)
    (run.folder / "report.html").mkdir()
    assert report.write_if_possible(run, Console()) is None
    assert "warning: the report could not be written: IsADirectoryError" in capfd.readouterr().err
    assert [p.name for p in run.folder.glob(".report*")] == []


@pytest.mark.parametrize("status", ["running", "interrupted", "tried", "failed"])
def test_an_unfinished_run_has_no_report(home, status):
    run = finished_run(home, status=status)
    with pytest.raises(UserError) as error:
        report.write(run, Console())
    assert str(error.value) == (
        f"run {run.id} has no report: its training is {status}; continue it with: "
        f"unfold train sentiment --resume {run.id}"
    )
    assert not (run.folder / "report.html").exists()


def test_a_run_that_has_almost_nothing_has_a_report(home):
    run = Run(home / "runs" / "sentiment" / "20260501-120000-tiny-ab12")
    run.update(status="finished", scores={})
    page = parsed(run)
    assert {"Use it", "Train it again"} <= set(page.headings)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a report reads of the runs of version 0.1."""
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            name = Path(member.name)
            if "runs" in name.parts and name.suffix in (".json", ".yaml", ".csv"):
                archive.extract(member, folder, filter="data")
    return folder


@pytest.mark.parametrize(
    "task", ["sentiment", "captioning", "translation", "forecasting", "generation"]
)
def test_a_run_of_an_older_version_has_a_report(task, older, monkeypatch, capfd):
    monkeypatch.setenv("UNFOLD_HOME", str(older))
    (run,) = Run.all(task)
    page = parsed(run)
    assert capfd.readouterr().err == ""
    assert page.headings[:3] == ["Use it", "Limits", "Scores"]
    text = "\n".join(page.texts)
    assert "95 % interval" not in text or task == "forecasting"
    assert run.info.data.fingerprint in text
    assert "Records by split" in text


def test_the_config_of_a_run_need_not_be_readable_by_this_version(home):
    run = finished_run(home)
    write_text(run.folder / "config.yaml", "task: sentiment\nno_such_key: 1\n")
    text = "\n".join(parsed(run).texts)
    assert "no_such_key: 1" in text
    assert "It was scored on 20 records from mine.csv." in text


def test_the_page_is_that_of_the_dialect(home, monkeypatch):
    run = finished_run(home)
    monkeypatch.setenv("UNFOLD_DIALECT", "make")
    text = "\n".join(parsed(run).texts)
    assert f'make predict-sentiment RUN={run.id} INPUT="…"' in text
    assert f"make train-sentiment CONFIG={run.folder / 'config.yaml'}" in text


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1200, False)])
def test_in_a_browser_it_fits_a_phone_and_makes_no_request(home, browser, width, dark):
    run = finished_run(home)
    write_table(run, "wide", [[f"column_{i}" for i in range(30)], ["x" * 60] * 30])
    draw(run.folder / "figures" / "broad.png", 300)
    file = report.write(run, Console())
    shown = browser.open(file.as_uri(), width=width, dark=dark)
    assert shown.requests == [file.as_uri()]
    assert shown.messages == []
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert shown.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    # A wide table scrolls by itself, and can be reached with the keyboard.
    wide = "document.querySelector('[aria-label=Wide]')"
    assert shown.evaluate(f"{wide}.scrollWidth > {wide}.clientWidth && {wide}.tabIndex === 0")
    shown.evaluate("document.querySelector('summary').click()")
    assert shown.evaluate("document.querySelector('details').open")
    shown.close()


def test_an_image_is_embedded_as_it_is(home):
    run = finished_run(home)
    png = (run.folder / "figures" / "zebra.png").read_bytes()
    (image,) = [i for i in parsed(run).all("img") if i["alt"] == "Zebra."]
    content = base64.b64decode((image["src"] or "").partition(",")[2])
    assert content == png
    assert Image.open(io.BytesIO(content)).size == (20, 20)


def test_the_command_prints_the_path(home, capsys):
    from pipelines.cli import main

    run = finished_run(home)
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main.main(["report", "sentiment", "--run", run.id, *options])
        assert not end.value.code
    first, _, rest = capsys.readouterr().out.partition("\n")
    assert first == str(run.folder / "report.html")
    assert json.loads(rest) == {"run": run.id, "model": "sentiment", "report": first}
