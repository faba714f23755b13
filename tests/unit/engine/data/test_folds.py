"""Cross-validation: every record is tested once, and no text is on two sides."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.config import loader as configs
from pipelines.engine.config.folds import Fold
from pipelines.engine.config.schema import DataConfig, TextDataConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import loading
from pipelines.engine.data.splits import Splits, smallest_stratum, split_fold
from pipelines.engine.tasks.catalog import get_config


@st.composite
def tables(draw):
    """Keys and strata of a shuffled table with repeated keys, and a number of folds."""
    folds = draw(st.integers(2, 6))
    sizes = draw(st.lists(st.integers(folds, folds + 9), min_size=1, max_size=3))
    rows = [
        (100 * stratum + key, stratum)
        for stratum, size in enumerate(sizes)
        for key in range(size)
        for _ in range(draw(st.integers(1, 3)))
    ]
    keys, strata = np.array(draw(st.permutations(rows))).T
    return keys, strata, folds


@given(tables(), st.floats(0, 0.3), st.integers(0, 5))
def test_folds_divide_the_records(table, validation, seed):
    keys, strata, folds = table
    tested = Counter[int]()
    for number in range(1, folds + 1):
        rows = split_fold(keys, strata, Fold(number, folds), validation, seed)
        assert sorted(np.concatenate(list(rows.values()))) == list(range(len(keys)))
        sides = {name: set(keys[indices]) for name, indices in rows.items()}
        assert sum(map(len, sides.values())) == len(set(keys)), "no key is on two sides"
        tested.update(rows["test"].tolist())
        for stratum in set(strata):
            of_stratum = set(keys[strata == stratum])
            in_test = len(sides["test"] & of_stratum)
            assert in_test in (len(of_stratum) // folds, -(-len(of_stratum) // folds))
            rest = len(of_stratum) - in_test
            wanted = min(round(validation * folds / (folds - 1) * rest), rest - 1)
            assert len(sides["validation"] & of_stratum) == wanted
    assert tested == Counter(range(len(keys)))


def test_the_seed_decides_the_folds():
    keys, strata = np.arange(60), np.arange(60) % 2

    def tested(seed: int) -> list[int]:
        return split_fold(keys, strata, Fold(1, 5), 0.1, seed)["test"].tolist()

    assert tested(1) == tested(1) != tested(2)


def test_the_smallest_stratum_counts_different_keys():
    keys, strata = np.array([7, 8, 9, 9, 9, 6]), np.array([0, 0, 1, 1, 1, 0])
    assert smallest_stratum(keys, strata) == (2, 1)


@dataclass(frozen=True)
class Labelled:
    text: str
    label: str
    place: str


def load(source, fold: str | None, kind: type[DataConfig] = DataConfig, **more) -> Splits:
    spec = loading.RecordSpec[Labelled](
        columns=["text", "label"],
        parse=lambda row: Labelled(row.fields["text"], row.fields["label"], row.place),
        content=lambda r: (r.text, r.label),
        key=lambda r: r.text,
        stratum=lambda r: r.label,
    )
    data = kind(source=str(source), fold=fold, **more)
    return loading.load(data, spec, seed=3)


@pytest.fixture
def table(tmp_path):
    """Fifty rows of forty texts; every fourth text has the class ``b``."""
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"text {i % 40}", "b" if i % 4 == 0 else "a"] for i in range(50))
    return path


def test_records_are_loaded_fold_by_fold(table):
    tested: list[str] = []
    for number in range(1, 6):
        splits = load(table, f"{number}/5")
        sides = [{r.text for r in s} for s in (splits.train, splits.validation, splits.test)]
        assert [len(side) for side in sides] == [28, 4, 8]
        assert sum(r.label == "b" for r in {r.text: r for r in splits.test}.values()) == 2
        assert not sides[0] & sides[2]
        tested += [r.place for r in splits.test]
    assert len(tested) == len(set(tested)) == 50
    assert load(table, None).test_fingerprint != load(table, "1/5").test_fingerprint


def test_folds_on_disk_are_those_in_memory(table):
    one, other = (load(table, "2/5", TextDataConfig, keep=keep) for keep in ("memory", "disk"))
    assert one.fingerprint == other.fingerprint


def test_a_class_needs_a_record_for_each_fold(table):
    assert len(load(table, "1/10").test)
    with pytest.raises(UserError) as caught:
        load(table, "1/12")
    assert str(caught.value) == (
        f"{table}: has only 10 different record(s) of 'b' for 12 folds; use 10 folds or fewer"
    )


def test_something_is_left_to_train_on(table):
    with pytest.raises(UserError, match=r"data\.fold and data\.validation hold out 100%"):
        load(table, "1/2", validation=0.5)


def test_a_few_documents_are_not_divided(tmp_path):
    (tmp_path / "novel.txt").write_text("word " * 500)
    spec = loading.RecordSpec[Labelled](
        columns=["text"],
        parse=lambda row: Labelled(row.fields["text"], "", row.place),
        content=lambda r: (r.text,),
        key=lambda r: r.text,
        cut=lambda r, start, end: r,
    )
    data = DataConfig(source=str(tmp_path / "novel.txt"), fold="1/5")
    with pytest.raises(UserError, match="has 1 documents, and folds need 20"):
        loading.load(data, spec, seed=1)


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "1", "1 of 5", "1/5\n", "01/5", "-1/5"])
def test_a_fold_is_a_number_of_several(fold):
    with pytest.raises(ValueError, match="must be NUMBER/FOLDS with at least 2 folds"):
        DataConfig(source="a.csv", fold=fold)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_folds_are_of_one_source(split):
    with pytest.raises(ValueError, match=f"data.{split} is a source of its own"):
        DataConfig.model_validate({"source": "a.csv", "fold": "1/5", split: "b.csv"})


def test_an_error_names_the_key(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("data:\n  source: a.csv\n  test: b.csv\n  fold: 1/5\n")
    with pytest.raises(UserError) as caught:
        configs.load(file, get_config("sentiment"))
    assert str(caught.value) == (
        f"{file}:4:3: data.fold: must be null, because data.test is a source of its own and no "
        "fraction of data.source, not '1/5'"
    )
