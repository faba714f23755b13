"""The demo page: a real process and browser, every tab."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from pipelines.engine.export import savedmodel
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_task
from tests.support.browser import Browser, Page

pytest.importorskip("gradio", reason="the demo is an extra: make setup EXTRAS=demo")

TUNE = "X:1\nT:No. {n}\nM:4/4\nL:1/4\nK:C\n{a}DEF|GABc|{a}G:|\n"
SMALL = {"units": [6], "embedding": 6}

pytestmark = pytest.mark.browser


def write_data(folder: Path) -> None:
    rows = [
        f"the film was {['dull', 'fine'][i % 2]} {i},{'no' if i % 2 else 'yes'}" for i in range(40)
    ]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    pairs = [f"one {n} dog\tein {n} Hund" for n in range(40)]
    (folder / "pairs.tsv").write_text("\n".join(["input\toutput", *pairs]))
    tunes = [TUNE.format(n=i, a="CDEFGABcdefgab"[i % 14] * (1 + i // 14)) for i in range(40)]
    (folder / "tunes.abc").write_text("\n".join(tunes))
    days = np.datetime64("2024-01-01") + np.arange(120)
    prices = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(size=120) / 50))
    rows = [f"{d},{p:.4f}" for d, p in zip(days, prices, strict=True)]
    (folder / "prices.csv").write_text("\n".join(["date,close", *rows]))


def write_run(task_name: str, finished: str = "2026-01-01", **sections: object) -> None:
    """Write a finished run of a small, untrained model."""
    task = get_task(task_name)
    config = task.config.model_validate({"name": "live", **sections})
    splits = task.load(config)
    processor = task.fit_processor(config, splits)
    keras.utils.set_random_seed(1)
    model: keras.Model = task.build(config, processor)
    model.build(None)
    run = Run.create(config, processor, data={})
    endpoints = task.endpoints(config, processor, model)
    savedmodel.write(run.folder / "savedmodel", model, endpoints, processor.resources())
    run.update(status="finished", finished=finished)


def test_a_tab_shows_which_run_it_uses(tmp_path, monkeypatch):
    write_data(tmp_path)
    from pipelines.demo import models, page

    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path))
    source = {"source": str(tmp_path / "reviews.csv")}
    for name, day in (("default", "2026-01-03"), ("live", "2026-01-01"), ("live", "2026-01-02")):
        write_run("sentiment", finished=day, name=name, data=source, model=SMALL)
    latest = models.latest_run("sentiment")
    assert (latest.info.config_name, latest.info.finished) == ("live", "2026-01-02")
    assert latest.id in page.describe_model("sentiment")
    assert page.describe_model("generation").startswith("**Not trained yet:**")
    assert not page.offer_models("sentiment").visible
    write_run(
        "sentiment", "2026-01-04", name="t", registered_model="tickets", data=source, model=SMALL
    )
    assert models.latest_run("sentiment").id == latest.id
    chosen = models.latest_run("sentiment", "tickets")
    assert chosen.model_name == "tickets"
    assert f"`tickets`, run `{chosen.id}`" in page.describe_model("sentiment", "tickets")
    offered = page.offer_models("sentiment")
    assert [value for _, value in offered.choices] == ["sentiment", "tickets"]
    assert (offered.value, offered.visible) == ("sentiment", True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    home = tmp_path_factory.mktemp("home")
    write_data(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOLD_HOME", str(home))
        write_run("sentiment", data={"source": str(home / "reviews.csv")}, model=SMALL)
        write_run(
            "translation",
            data={"source": str(home / "pairs.tsv"), "input": "input", "output": "output"},
            model={"encoder": SMALL, "decoder": SMALL},
        )
        write_run(
            "generation",
            data={"source": str(home / "tunes.abc")}, model=SMALL, text={"format": "abc"},
        )  # fmt: skip
        write_run(
            "forecasting",
            data={"source": str(home / "prices.csv")},
            model={"units": [6], "history": 20, "horizon": 3},
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "demo", "--port", str(port)],
        env=os.environ | {"UNFOLD_HOME": str(home)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.3)
        yield home, address
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def page(demo: tuple[Path, str], browser: Browser) -> Iterator[Page]:
    opened = browser.open(demo[1], width=1100, height=900)
    opened.wait("document.querySelectorAll('button[role=tab]').length >= 5")
    yield opened
    opened.close()


def open_tab(page: Page, name: str) -> None:
    tabs = "[...document.querySelectorAll('button[role=tab]')]"
    chosen = f"{tabs}.find(t => t.textContent.trim() === {json.dumps(name)})"
    page.wait(f"!!{chosen}")
    page.evaluate(f"{chosen}.click()")
    page.wait(f"document.querySelector('#model-{name.lower()}')?.offsetParent != null")


def shows(page: Page, selector: str, what: str = "e") -> str:
    found = f"document.querySelector({json.dumps(selector)})"
    return f"(() => {{ const e = {found}; return !!({what}); }})()"


def test_a_review_is_classified_while_it_is_typed(page):
    open_tab(page, "Sentiment")
    page.click("#review textarea")
    for word in ("the ", "film ", "was ", "fine"):
        page.type(word)
    page.wait(shows(page, "#words", "e && e.textContent.includes('the film was fine')"))
    assert page.evaluate("document.querySelectorAll('#words span[title]').length") >= 4
    page.wait(shows(page, "#label", "e && /%/.test(e.textContent)"))
    # The page can be used by keyboard: Tab moves the focus.
    page.press("Tab")
    assert page.evaluate("document.activeElement !== document.querySelector('#review textarea')")


def test_a_text_is_translated(page):
    open_tab(page, "Translation")
    page.click("#source textarea")
    page.type("one dog")
    page.click("#translate")
    page.wait(shows(page, "#translation textarea", "e && e.value.length"))
    page.wait(shows(page, "#attention img", "e && e.naturalWidth > 50"))


def test_a_task_without_a_run_shows_how_to_train_one(page):
    open_tab(page, "Captioning")
    page.wait(
        shows(page, "#model-captioning", "e && e.textContent.includes('unfold train captioning')")
    )


def test_a_series_is_forecast(page):
    open_tab(page, "Forecasting")
    page.click("#sample")
    page.wait(shows(page, "#fan img", "e && e.naturalWidth > 50"))


def test_a_tune_is_composed(page):
    open_tab(page, "Generation")
    page.click("#prompt textarea")
    given = "X:1\nT:A tune\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|"
    page.type(given)
    page.click("#compose")
    # An untrained model may end early, but not at once.
    page.wait(shows(page, "#written textarea", f"e && e.value.length > {len(given)}"))


def test_the_page_fits_a_phone_and_requests_nothing_from_other_hosts(page, demo):
    page.send(
        "Emulation.setDeviceMetricsOverride",
        width=390, height=844, deviceScaleFactor=1, mobile=True,
    )  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    others = [r for r in page.requests if "//127.0.0.1:" not in r and not r.startswith("blob:")]
    assert others == []
    assert not [m for m in page.messages if m.startswith("exception")]
