"""Histograms, the population stability index, and what chance explains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydantic import ValidationError
from scipy import stats

from pipelines.engine.core import drift
from pipelines.engine.core.drift import Histogram

COUNTS = npst.arrays(
    np.int64, st.shared(st.integers(2, 12), key="bins"), elements=st.integers(0, 500)
)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(COUNTS, COUNTS)
def test_psi_is_that_of_the_formula(a, b):
    assume(a.sum() > 0 and b.sum() > 0)
    expected, half = 0.0, 0.5 / min(a.sum(), b.sum())
    p = [(x / a.sum() + half) / (1 + half * len(a)) for x in a]
    q = [(x / b.sum() + half) / (1 + half * len(b)) for x in b]
    for one, other in zip(p, q, strict=True):
        expected += (one - other) * np.log(one / other)
    assert drift.psi(a, b) == pytest.approx(expected, abs=1e-12)
    assert drift.psi(a, b) == pytest.approx(drift.psi(b, a), abs=1e-12)
    assert drift.psi(a, b) >= 0
    assert drift.psi(a, a) == 0
    assert drift.psi(a, 7 * a) == pytest.approx(0, abs=1e-12)  # whatever the size of the sample


@given(COUNTS, COUNTS)
def test_psi_rises_as_shares_move_from_one_distribution_to_another(a, b):
    assume(a.sum() > 0 and b.sum() > 0)
    b = b * (a.sum() / b.sum())  # of as many values
    path = [drift.psi(a, (1 - t) * a + t * b) for t in np.linspace(0, 1, 9)]
    assert (np.diff(path) >= -1e-12).all()


@given(st.lists(NUMBERS, min_size=1, max_size=300))
def test_every_number_is_counted_in_its_bin(values):
    array = np.array(values)
    found = Histogram.of_numbers(array)
    assert found.size == len(values)
    np.testing.assert_array_equal(found.count(array), found.counts)
    one_by_one = np.bincount([found.bin(v) for v in values], minlength=len(found.counts))
    np.testing.assert_array_equal(one_by_one, found.counts)
    assert len(found.counts) <= 53
    # Compared with itself there is nothing, in whatever groups of bins.
    assert drift.compare(found, found.counts, 1).psi == 0
    assert drift.compare(found, found.counts, 1).ks == 0


@given(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=200))
def test_every_category_is_counted(values):
    found = Histogram.of_categories(np.array(values))
    assert dict(zip(found.categories, found.counts[:-1], strict=True)) == {
        c: values.count(c) for c in values
    }
    assert found.counts[-1] == 0
    assert found.count(np.array([*values, "new"])).tolist() == [*found.counts[:-1], 1]
    assert found.bin("new") == len(found.categories)


def test_numbers_that_are_no_numbers_are_left_out():
    found = Histogram.of_numbers(np.array([1.0, np.nan, 2.0, np.inf]))
    assert found.size == 2
    assert found.count(np.array([np.nan, 1.0])).sum() == 1
    assert found.bin(float("nan")) is None


def test_a_histogram_survives_json():
    for found in (
        Histogram.of_numbers(np.random.default_rng(0).lognormal(size=500)),
        Histogram.of_categories(np.array(["yes", "no", "yes"])),
    ):
        assert Histogram.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"counts": [1, 2]},
        {"edges": [1.0], "counts": [1]},
        {"edges": [2.0, 1.0], "counts": [1, 1, 1]},
        {"edges": [1.0], "categories": ["a"], "counts": [1, 1]},
        {"categories": ["a"], "counts": [-1, 1]},
    ],
)
def test_bins_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValidationError):
        Histogram.model_validate(wrong)


DRAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "lengths": lambda rng, n: rng.poisson(9, size=n).astype(float),
    "mostly zero": lambda rng, n: np.maximum(rng.normal(-1, size=n), 0),
    "constant": lambda rng, n: np.full(n, 3.0),
    "classes": lambda rng, n: rng.choice(["a", "b", "c"], n, p=[0.7, 0.25, 0.05]),
    "words": lambda rng, n: rng.zipf(1.5, n),
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(("old", "new"), [(60, 60), (60, 2000), (1250, 80), (2000, 2000)])
def test_samples_of_one_distribution_are_rarely_told_apart(kind, old, new):
    false = {"psi": 0, "p": 0, "verdict": 0}
    rounds = 300
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        a, b = DRAWS[kind](rng, old), DRAWS[kind](rng, new)
        made = Histogram.of_numbers if a.dtype.kind == "f" else Histogram.of_categories
        found = drift.compare(made(a), made(a).count(b), 1)
        false["psi"] += found.psi > found.noise
        false["p"] += found.p_value < 0.01
        false["verdict"] += found.verdict in ("some", "much")
    # One in a hundred is expected of both tests.
    assert false["psi"] <= 0.03 * rounds, false
    assert false["p"] <= 0.03 * rounds, false
    assert false["verdict"] <= false["psi"]


def test_with_enough_values_there_is_no_drift_and_with_few_it_cannot_be_told():
    rng = np.random.default_rng(0)
    reference = Histogram.of_numbers(rng.normal(size=2000))
    same = drift.compare(reference, reference.count(rng.normal(size=2000)), 8)
    assert same.verdict == "none"
    assert same.noise < 0.05
    few = drift.compare(reference, reference.count(rng.normal(size=15)), 8)
    assert few.verdict == "too few"
    assert few.noise > drift.MUCH


@pytest.mark.parametrize(("shift", "expected"), [(0.1, "none"), (0.4, "some"), (1.5, "much")])
def test_a_shift_is_told_by_its_size(shift, expected):
    rng = np.random.default_rng(1)
    reference = Histogram.of_numbers(rng.normal(size=2000))
    found = drift.compare(reference, reference.count(rng.normal(shift, size=2000)), 8)
    assert found.verdict == expected
    assert found.exceeds(0.01) == (found.psi > found.noise)


def test_much_is_told_of_few_values():
    rng = np.random.default_rng(1)
    reference = Histogram.of_numbers(rng.normal(size=60))
    found = drift.compare(reference, reference.count(rng.normal(5, size=30)), 8)
    assert found.verdict == "much"


def test_a_constant_may_rise_and_fall():
    reference = Histogram.of_numbers(np.full(500, 0.0))
    for value in (-1.0, 1.0):
        found = drift.compare(reference, reference.count(np.full(500, value)), 8)
        assert found.verdict == "much"
        assert found.ks == 1
    assert drift.compare(reference, reference.count(np.zeros(50)), 8).psi == 0


def test_values_that_nobody_has_seen_are_drift():
    reference = Histogram.of_categories(np.array(["a", "b"] * 300))
    found = drift.compare(reference, reference.count(np.array(["c"] * 200)), 8)
    assert found.verdict == "much"
    assert found.ks is None
    assert found.p_value < 1e-6


@given(st.integers(0, 50), st.floats(0, 2))
def test_the_ks_statistic_is_scipys_up_to_the_width_of_a_bin(seed, shift):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=400), rng.normal(shift, size=300)
    reference = Histogram.of_numbers(a)
    found = drift.compare(reference, reference.count(b), 1)
    exact = stats.ks_2samp(a, b)
    assert exact.statistic - 0.03 <= found.ks <= exact.statistic + 1e-9


def test_values_that_come_together_count_less():
    """Words of few texts, each about something else, are no sample of as many words."""
    rng = np.random.default_rng(0)
    alone = together = 0
    for _ in range(50):

        def draw(texts: int) -> tuple[np.ndarray, np.ndarray]:
            topics = rng.dirichlet(np.full(20, 0.3), size=texts)
            words = np.concatenate([rng.choice(20, 100, p=topic) for topic in topics])
            return words, np.repeat(np.arange(texts), 100)

        (a, groups), (b, _) = draw(40), draw(40)
        plain, clustered = Histogram.of_categories(a), Histogram.of_categories(a, groups)
        assert clustered.clustering > 10
        alone += (
            drift.compare(plain, plain.count(b), 1).psi
            > drift.compare(plain, plain.count(b), 1).noise
        )
        found = drift.compare(clustered, clustered.count(b), 1)
        together += found.psi > found.noise
    assert alone > 40
    assert together <= 3


def test_one_group_tells_as_much_as_one_value():
    found = Histogram.of_numbers(np.arange(100.0), np.zeros(100, int))
    assert found.clustering == 100
    assert drift.compare(found, found.counts, 1).verdict == "too few"
