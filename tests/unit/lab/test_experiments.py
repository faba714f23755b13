"""The lab's problems, its measurements against known results, and its report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from layers import GRU, LSTM
from pipelines.engine.core.tables import Table
from pipelines.lab import problems
from pipelines.lab.experiments import EXPERIMENTS
from pipelines.lab.networks import initialize_long_memory
from pipelines.lab.run import page
from pipelines.lab.section import Section, Settings
from tests.support.commands import unfold

FAST = Settings(fast=True)
#: Experiments without training.
QUICK = [
    "by_hand", "unfolding", "backpropagation", "vanishing", "relu", "truncation", "architectures",
]  # fmt: skip


def sample(problem: problems.Problem, seed: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    return problem(np.random.default_rng(seed), 8, time)


@given(seed=st.integers(0, 1000), time=st.integers(2, 12))
def test_order_problem_has_the_same_symbols_in_both_classes(seed: int, time: int) -> None:
    x, y = sample(problems.order, seed, time)
    ids = x.argmax(axis=-1)
    assert np.all(x.sum(axis=-1) == 1)
    for row, label in zip(ids.tolist(), y, strict=True):
        assert row.count(0) == row.count(1) == 1
        assert label == (row.index(0) < row.index(1))


@given(seed=st.integers(0, 1000), time=st.integers(2, 12))
def test_targets_of_the_other_problems(seed: int, time: int) -> None:
    x, y = sample(problems.recall, seed, time)
    ids = x.argmax(axis=-1)
    assert np.array_equal(ids[:, 0], y)
    assert set(y) <= {0, 1}
    assert np.all(ids[:, 1:] > 1)
    x, y = sample(problems.adding, seed, time)
    assert np.all(x[:, :, 1].sum(axis=1) == 2)
    np.testing.assert_allclose((x[:, :, 0] * x[:, :, 1]).sum(axis=1), y[:, 0], rtol=1e-6)
    x, y = sample(problems.next_symbol, seed, time)
    assert np.array_equal(x.argmax(axis=-1)[:, 1:], y[:, :-1])


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_long_memory_initialization_sets_the_share_a_unit_keeps(kind: Any) -> None:
    layer = kind(5)
    layer.build((None, None, 2))
    initialize_long_memory(layer, 100, seed=1)
    gate = "f" if kind is LSTM else "z"
    kept = 1 / (1 + np.exp(-np.asarray(getattr(layer, f"b_{gate}"))))
    assert np.all((kept >= 0.5) & (kept < 1 - 1 / 101))
    others = [g for g in layer.cell.gate_order if g not in (gate, "i", "f")]
    assert not any(np.any(np.asarray(getattr(layer, f"b_{g}"))) for g in others)


@pytest.fixture(scope="module")
def quick() -> dict[str, Section]:
    return {name: EXPERIMENTS[name](FAST) for name in QUICK}


def test_verdicts_of_the_quick_experiments(quick: dict[str, Section]) -> None:
    assert {name: section.holds for name, section in quick.items()} == dict.fromkeys(
        QUICK, True
    ) | {"relu": False}


def test_numbers_agree_with_theory(quick: dict[str, Section]) -> None:
    assert quick["by_hand"].numbers["difference"] < 1e-6
    assert quick["unfolding"].numbers["difference"] < 1e-6
    assert max(quick["backpropagation"].numbers.values()) < 1e-6
    left = quick["vanishing"].numbers
    # The sigmoid's bound: its derivative is at most 1/4.
    assert 0 < left["left_after_50/sigmoid"] < 0.25**50
    assert left["left_after_50/tanh"] < 1e-3 < left["left_after_50/gru, long memory"]
    by_scale = list(quick["relu"].numbers.values())
    assert by_scale == sorted(by_scale)
    assert by_scale[0] < 1e-6
    assert by_scale[-1] > 1e6
    cosines = quick["truncation"].numbers
    assert cosines["cosine/lstm/30"] == pytest.approx(1.0, abs=1e-6)
    assert cosines["cosine/lstm/1"] < cosines["cosine/lstm/20"]


def test_first_step_of_the_forward_pass_by_hand(quick: dict[str, Section]) -> None:
    table = quick["by_hand"].table
    assert table is not None
    t, x, *rest = table.rows[0]
    h = [float(v) for v in rest[:2]]
    # From h_0 = 0: tanh(0.5 · 1 + 0) and tanh(−0.3 · 1 + 0.1).
    assert (t, x) == (1, 1.0)
    assert h == pytest.approx([np.tanh(0.5), np.tanh(-0.2)], abs=1e-6)


def test_same_seed_gives_the_same_numbers() -> None:
    first, second = (EXPERIMENTS["memory"](FAST).numbers for _ in range(2))
    assert first == second
    assert first["accuracy/recurrent"] > 0.9 > 0.6 > first["accuracy/feed-forward"]


def test_report_escapes_html_and_is_self_contained(quick: dict[str, Section]) -> None:
    odd = Section("<b>&", "a < b", "x", "", False, "no", {}, table=Table(["<script>"], [["</td>"]]))
    text = page([*quick.values(), odd], FAST, 1.0)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>&" not in text
    for address in re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')>\s]+)", text):
        assert address.startswith(("data:", "#s")), address
    assert "http" not in re.sub(r"data:[^\"]+", "", text)
    assert text.count("Does not hold as stated.") == 2


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_report_in_a_browser_makes_no_request(
    quick: dict[str, Section], browser: Any, tmp_path: Path, width: int, dark: bool
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(list(quick.values()), FAST, 1.0), encoding="utf-8")
    shown = browser.open(file.as_uri(), width=width, dark=dark)
    assert shown.requests == [file.as_uri()]
    assert shown.messages == []
    assert shown.evaluate("document.querySelectorAll('section').length") == len(quick)
    images_load = "[...document.images].every(image => image.complete && image.naturalWidth > 300)"
    figures = sum(len(section.figures) for section in quick.values())
    assert shown.evaluate("document.images.length") == figures >= 3
    assert shown.evaluate(images_load)
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown.click("nav a:last-of-type")
    assert shown.evaluate("scrollY") > 1000
    shown.close()


def test_command_writes_the_report_and_logs_to_mlflow(tmp_path: Path) -> None:
    done = unfold(tmp_path, "lab", "--fast", "--only", "by_hand", "relu", "--seed", "3")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "lab" / "report.html").read_text(encoding="utf-8")
    assert done.stdout.strip() == str(tmp_path / "lab" / "report.html")
    assert "seed 3" in text
    assert text.count("<section") == 2
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lab")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["relu/holds"] == 0.0
    assert run.data.params["seed"] == "3"
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--only", "gates_of_hell"], "long_range"), (["--seed", "-1"], "--seed -1")],
)
def test_wrong_arguments_are_reported_in_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = unfold(tmp_path, "lab", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "lab").exists()
