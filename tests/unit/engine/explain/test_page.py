"""The HTML page and the files of an explanation, also in a browser."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.engine.explain.explanation import Attention, Explanation, Segment
from pipelines.engine.explain.page import files, page, stem
from pipelines.sentiment.task import TASK as SENTIMENT
from tests.support.explaining import HandSet, Reader, untrained_sentiment


def test_page_contains_gates_set_by_hand(by_hand: HandSet) -> None:
    explanation, expected, _, _ = by_hand
    text = page(explanation, task="sentiment", run="by-hand")
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    (layer,) = json.loads(raw)["parts"][0]["layers"]
    for name, values in expected.items():
        packed = layer["values"][name]
        whole = np.frombuffer(base64.b64decode(packed["data"]), "<i2").reshape(packed["shape"])
        np.testing.assert_allclose(whole[:, 0] * packed["scale"], values, atol=1e-12)


def test_page_in_a_browser_shows_gates_set_by_hand(
    by_hand: HandSet, browser: Any, tmp_path: Path
) -> None:
    explanation, expected, _, words = by_hand
    write = files(lambda: explanation, "it", task="sentiment", run="by-hand")["it.html"]
    write(tmp_path / "it.html")
    shown = browser.open((tmp_path / "it.html").as_uri())
    for name, values in expected.items():
        read = f"part.tokens.map((_, t) => layer.values.{name}.at(t, 0))"
        assert shown.evaluate(read) == pytest.approx([float(v) for v in values])
    # The mouse selects what it points at.
    x, y = shown.evaluate("(b => [b.x, b.y])(canvas.getBoundingClientRect())")
    cell, above = shown.evaluate("[CELL, rowsTop]")
    shown.move(x + shown.evaluate("LEFT") + 3.5 * cell, y + above + 25)
    assert shown.evaluate("[step, part.tokens[step], lines[row].name]") == [3, "bad", "input gate"]
    shown.evaluate("goTo(0, 0)")
    # The arrow keys move through the picture.
    shown.evaluate("document.getElementById('picture').focus()")
    for _ in range(words.index("wipe")):
        shown.press("ArrowRight")
    details = shown.evaluate("document.getElementById('details').innerText")
    assert re.search(r"6 of 10: wipe", details)
    assert re.search(r"forget gate\s+0\.500", details)  # the mean of one unit that forgets, one not
    shown.click("#switches button")
    assert shown.evaluate("[step, lines[row].unit, rows.value]") == [7, 0, "hidden_state"]
    details = shown.evaluate("document.getElementById('details').innerText")
    assert re.search(r"hidden state, magnitude\s+0\.381\s+0\.762", details)
    shown.click("#tokens button:nth-child(3)")
    assert shown.evaluate("[step, part.tokens[step]]") == [2, "film"]
    assert shown.messages == []
    assert len(shown.requests) == 1
    # The colours are right: the forget gate of "wipe" and of the next word.
    shown.evaluate("(rows.value = 'forget_gate', updateRows(), goTo(0, 0, true))")
    colours = shown.evaluate(
        "[5, 6].map(t => [...canvas.getContext('2d')"
        ".getImageData(LEFT + t * CELL + 5, rowsTop + 5, 1, 1).data])"
    )
    assert colours[0][:3] == [255, 255, 255]
    assert colours[1][:3] == [31, 95, 168]
    shown.close()


@pytest.fixture(scope="module")
def segments(two_ways: Reader) -> tuple[Segment, Segment]:
    return two_ways.read("the good film " * 23), two_ways.read("a plot")


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_page_fits_a_phone_and_makes_no_request(
    browser: Any, tmp_path: Path, segments: tuple[Segment, Segment], width: int, dark: bool
) -> None:
    """With two segments and attention, and longer than the window is wide."""
    long, short = segments
    weights = np.array([[0.9, 0.1, 0, 0], [0.25] * 4], np.float32)
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    attention = Attention(weights, grid=(2, 2), image=png)
    attending = replace(short, attention=attention, top_tokens=[[("a", 0.5)], []])
    explanation = Explanation('<b>"&\n', "ü", [long, attending])
    write = files(lambda: explanation, "it", task="sentiment", run="1")["it.html"]
    write(tmp_path / "it.html")
    shown = browser.open((tmp_path / "it.html").as_uri(), width=width, dark=dark)
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert shown.evaluate("document.querySelector('h1').textContent.trim()") == '<b>"&'
    shown.evaluate("(goTo(68, 0, true), 0)")
    assert shown.evaluate("scroller.scrollLeft + scroller.clientWidth >= LEFT + 69 * CELL")
    shown.evaluate("(document.getElementById('part').value = 1, choosePart())")
    shown.wait("part.attention.image !== undefined")
    assert shown.evaluate("!document.getElementById('attention').hidden")
    light = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert shown.messages == []
    assert len(shown.requests) == 1
    shown.close()


def test_files_share_one_explanation(tmp_path: Path) -> None:
    config, processor, model = untrained_sentiment()
    calls = 0

    def explain() -> Explanation:
        nonlocal calls
        calls += 1
        return SENTIMENT.explain(config, processor, model, "a $good$ film_{ and </script> _^")

    written = files(explain, "explained_1", task="sentiment", run="run-1")
    assert not calls
    for name, write in written.items():
        write(tmp_path / name)
    assert calls == 1
    assert (tmp_path / "explained_1.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "explained_1.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert "default-src 'none'" in text
    assert stem("A Good film, and more than that", "1").startswith("a-good-film-and-more-")
    assert stem("x", "1") != stem("x", "2") != stem("y", "2")
