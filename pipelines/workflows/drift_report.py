"""A comparison of new data with that of training, in words, as a table and as JSON data."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.engine.core.drift import Histogram, Verdict
from pipelines.engine.core.tables import Table
from pipelines.engine.data.loading import REPORT_KEYS
from pipelines.engine.runs.run import Run
from pipelines.workflows.drift import Compared, Comparison

_ADVERBS = {"some": "somewhat", "much": "much"}
#: Medians closer than this share of the range of 80 % of the reference count as equal.
_NEAR = 0.1
#: Categories that are named in a sentence and in the table.
_NAMED = 3


def verdict(comparison: Comparison) -> Verdict:
    """Return the strongest verdict of all features."""
    found = {compared.drift.verdict for compared in comparison.features}
    order: tuple[Verdict, ...] = ("much", "some", "none", "too few")
    return next((v for v in order if v in found), "too few")


def sentences(comparison: Comparison) -> list[str]:
    """Say what moved, the strongest first; and what could not be told or compared."""
    ranked = sorted(comparison.features, key=lambda c: -c.drift.psi)
    moved = [c for c in ranked if c.drift.verdict in _ADVERBS]
    said = [_sentence(compared) for compared in moved]
    unclear = [c.name for c in comparison.features if c.drift.verdict == "too few"]
    if unclear:
        said.append(
            f"Too few values to tell whether there is drift in: {', '.join(unclear)} (even much "
            "could be chance)."
        )
    if not moved and len(unclear) < len(comparison.features):
        said.append("No drift: the new data is like that of training.")
    if comparison.missing:
        said.append(f"Not compared, as the new data has none: {', '.join(comparison.missing)}.")
    return said


def table(comparison: Comparison) -> Table:
    """Return a row for each feature."""
    rows = []
    for compared in comparison.features:
        found = compared.drift
        then, now = _short(compared)
        rows.append(
            [
                compared.name,
                f"{found.psi:.3f}",
                f"{found.noise:.3f}",
                "" if found.ks is None else f"{found.ks:.3f}",
                f"{found.p_value:.1g}",
                then,
                now,
                found.verdict,
            ]
        )
    return Table(["feature", "PSI", "chance", "KS", "p", "training", "new", "drift"], rows)


def sources(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the counts of the rows of each source of the new data."""
    return {k: v for k, v in comparison.report.items() if k not in REPORT_KEYS and "rows" in v}


def to_dict(comparison: Comparison, run: Run, source: str) -> dict[str, Any]:
    """Return the comparison as JSON data."""
    digest = comparison.digest
    return {
        "run": run.id,
        "model": run.model_name,
        "data": source,
        "records": comparison.records,
        "used": comparison.used,
        "rows": sources(comparison),
        "training": {"split": digest.split, "records": digest.records, "used": digest.used},
        "drift": verdict(comparison),
        "sentences": sentences(comparison),
        "features": [
            {
                "name": compared.name,
                "psi": compared.drift.psi,
                "chance": compared.drift.noise,
                "ks": compared.drift.ks,
                "p_value": compared.drift.p_value,
                "drift": compared.drift.verdict,
                "training": _described(compared, compared.reference, compared.reference.counts),
                "new": _described(compared, compared.new, compared.counts),
            }
            for compared in comparison.features
        ],
        "not_compared": comparison.missing,
    }


def _sentence(compared: Compared) -> str:
    words = compared.wording
    adverb = _ADVERBS[compared.drift.verdict]
    if compared.reference.categories is not None:
        shares = ", ".join(
            f"{name} {_percent(now)}, {_percent(then)} then"
            for name, then, now in _moved_categories(compared)
        )
        return f"{words.subject} are {adverb} unlike those of training: {shares}."
    assert compared.reference.quantiles is not None
    assert compared.new.quantiles is not None
    low, then, high = compared.reference.quantiles
    new_low, now, new_high = compared.new.quantiles
    percent = "%" if words.unit == "%" else ""
    if abs(now - then) > _NEAR * (high - low):
        comparative = words.lower if now < then else words.higher
        return (
            f"{words.subject} are {adverb} {comparative} than in training: median "
            f"{_number(now, words.unit)}, {_number(then, percent)} then."
        )
    return (
        f"{words.subject} are {adverb} differently spread than in training: 80 % of them from "
        f"{_range(new_low, new_high, words.unit)}, from {_range(low, high, words.unit)} then."
    )


def _moved_categories(compared: Compared) -> list[tuple[str, float, float]]:
    """Return the categories whose shares moved most: name, share then, share now."""
    then, now = (np.asarray(c) / np.sum(c) for c in (compared.reference.counts, compared.counts))
    most = [i for i in np.argsort(-np.abs(now - then), kind="stable") if now[i] or then[i]][:_NAMED]
    return [(_name(compared, int(i)), float(then[i]), float(now[i])) for i in most]


def _name(compared: Compared, bin_: int) -> str:
    categories = compared.reference.categories or ()
    return compared.wording.categories(categories[bin_]) if bin_ < len(categories) else "others"


def _short(compared: Compared) -> tuple[str, str]:
    """Return the distributions then and now in a few characters."""
    if compared.reference.categories is not None:
        name, then, now = _moved_categories(compared)[0]
        return f"{name} {_percent(then)}", f"{name} {_percent(now)}"
    shown = []
    for found in (compared.reference, compared.new):
        assert found.quantiles is not None
        low, median, high = found.quantiles
        unit = "%" if compared.wording.unit == "%" else ""
        shown.append(f"{_number(median, unit)} ({_range(low, high, unit, '–')})")
    return shown[0], shown[1]


def _described(compared: Compared, found: Histogram, counts: Any) -> dict[str, Any]:
    size = int(np.sum(counts))
    if found.quantiles is not None:
        low, median, high = found.quantiles
        return {"values": size, "low_10": low, "median": median, "high_90": high}
    shares = {_name(compared, i): float(c) / size for i, c in enumerate(counts)}
    return {"values": size, "shares": shares}


def _range(low: float, high: float, unit: str, to: str = " to ") -> str:
    return f"{_number(low, '%' if unit == '%' else '')}{to}{_number(high, unit)}"


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return _percent(value)
    text = f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"
    return f"{text} {unit}".strip()


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
