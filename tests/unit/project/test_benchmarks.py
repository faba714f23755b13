"""The benchmarks run; how fast, no test says."""

import json
import math

from benchmarks import layers as subject
from benchmarks import measure


def test_a_tiny_benchmark_runs_and_is_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(subject, "SHAPES", [(2, 3, 4, 5)])
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(subject, "installed", lambda name: False)  # no peers
    tables = [
        subject.measure("LSTM", train, ragged, False, rounds=1)
        for train, ragged in [(True, True), (False, False)]
    ]
    measure.report("tiny", tables)
    (kept,) = tmp_path.glob("tiny-*.json")
    saved = json.loads(kept.read_text(encoding="utf-8"))
    assert saved["machine"]["cores"] >= 1
    for table, names in zip(
        saved["tables"],
        [
            {"unfold", "keras graph", "keras XLA"},
            {"unfold", "keras graph", "keras XLA", "GEMM limit"},
        ],
        strict=True,
    ):
        assert [row["case"] for row in table["rows"]] == [[2, 3, 4, 5]]
        for row in table["rows"]:
            assert set(row["values"]) == names
            assert all(0 < value < math.inf for value in row["values"].values())
    assert "unfold" in capsys.readouterr().out


def test_ratios_are_of_others_to_ours():
    table = measure.Table("t", ["a", "b"])
    table.add("a", {"unfold": 2.0, "torch": 3.0})
    table.add("b", {"unfold": 1.0, "torch": 6.0})
    assert table.ratios["torch"] == [1.5, 6.0]
    assert math.isclose(measure.geometric_mean(table.ratios["torch"]), 3.0)


def test_best_of_takes_turns_and_the_quickest():
    calls, slow = [], iter([0.0] * 100)

    def one():
        calls.append("one")
        next(slow)

    best = measure.best_of({"one": one, "two": lambda: calls.append("two")}, 2, seconds=0)
    assert calls == ["one", "one", "two", "two", "one", "two", "one", "two"]
    assert set(best) == {"one", "two"}
    assert all(0 <= value < 1000 for value in best.values())
