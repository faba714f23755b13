"""Data that outgrow the memory: what is kept on disk gives what is kept in memory."""

import csv
import os
import random
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine.config import loader as configs
from pipelines.engine.config import schema
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import disk, ragged
from pipelines.engine.data.bucketing import BucketFeed, Buckets, lengths_of, shuffled
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.tasks.catalog import BUILT_IN, find_config, get_config, get_task
from pipelines.engine.text.vocabulary import count_words
from tests.support import ROOT


@dataclass(frozen=True)
class Record:
    text: str
    number: int
    place: str


records = st.lists(st.builds(Record, st.text(), st.integers(), st.text()), max_size=20)
few = settings(max_examples=25)


@given(records, st.data())
@few
def test_records_come_back_from_disk(found, data):
    kept = disk.DiskRecords(iter(found))
    assert len(kept) == len(found)
    assert list(kept) == found
    start, stop = (data.draw(st.integers(-25, 25)) for _ in range(2))
    assert list(kept[start:stop]) == found[start:stop]
    which = data.draw(st.lists(st.integers(0, len(found) - 1)) if found else st.just([]))
    taken = disk.select(kept, np.array(which, np.int64))
    assert list(taken) == [found[i] for i in which]
    if found:
        assert kept[-1] == found[-1]
    texts = disk.map_records(lambda r: r.text, kept, taken)
    assert isinstance(texts, disk.MappedRecords)
    assert list(texts) == [r.text for r in [*found, *taken]]
    assert len(texts) == len(found) + len(which)
    assert disk.map_records(lambda r: r.text, found) == [r.text for r in found]


def test_broken_text_comes_back_and_what_is_past_the_end_is_refused():
    kept = disk.DiskRecords([Record("half \ud800 of a pair\nand a line", 1, "a:1")])
    assert kept[0].text == "half \ud800 of a pair\nand a line"
    with pytest.raises(IndexError):
        kept[1]


def test_nothing_is_left_on_disk(home):
    kept = disk.DiskRecords([Record("a", 1, "b")] * 1000)
    assert len(kept) == 1000
    assert list(home.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(home):
    home.write_text("a file")
    with pytest.raises(UserError, match=r"home: cannot write there"):
        disk.DiskRecords([Record("a", 1, "b")])


def on_disk(rows: Ragged) -> Ragged:
    whole = disk.DiskArray()
    for i in range(len(rows)):
        whole.append(rows[i])
    return Ragged(whole.finish(), rows.lengths)


def rows_of(lengths: list[int], seed: int = 0) -> Ragged:
    values = np.random.default_rng(seed).integers(1, 1000, sum(lengths)).astype(np.int32)
    return Ragged(values, np.array(lengths, np.int64))


some_lengths = st.lists(st.integers(0, 9), min_size=1, max_size=1300)


@given(some_lengths)
@few
def test_marks_are_put_around_rows_on_disk(lengths):
    rows = rows_of([*lengths, 1])
    kept = on_disk(rows)
    for made in (Ragged.with_prefix, Ragged.with_suffix):
        expected, found = made(rows, 7), made(kept, 7)
        assert found.on_disk
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.lengths, expected.lengths)


def same(left: tf.data.Dataset, right: tf.data.Dataset) -> int:
    """How many batches, all of them the same."""
    assert left.element_spec == right.element_spec
    assert left.cardinality() == right.cardinality()
    count = 0
    for one, two in zip(left, right, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, two)
        count += 1
    return count


@pytest.mark.parametrize("count", [1, 1100])  # the disk is read in pieces of 1,024 rows
def test_batches_of_rows_on_disk_are_those_of_rows_in_memory(count):
    rng = np.random.default_rng(count)
    read, written = (rows_of(rng.integers(1, 30, count).tolist(), seed=i) for i in range(2))
    order = rng.permutation(count)
    buckets = Buckets.fit(lengths_of(read, written), buckets=3, batch_size=16)
    expected = buckets.batches({"a": read, "b": written}, written, order)
    kept = on_disk(read), on_disk(written)
    found = buckets.batches({"a": kept[0], "b": kept[1]}, kept[1], order)
    assert same(expected, found) == buckets.steps(lengths_of(read, written))
    classes = np.arange(count, dtype=np.int32)
    buckets = Buckets.fit(lengths_of(read), buckets=3, batch_size=16)
    same(buckets.batches(read, classes, order), buckets.batches(kept[0], classes, order))


@given(st.integers(1, 3000), st.integers(1, 500), st.integers(0, 99), st.integers(0, 9))
@few
def test_a_buffer_shuffles_what_lies_side_by_side(count, buffer, seed, epoch):
    order = shuffled(count, seed=seed, epoch=epoch, buffer=buffer)
    assert sorted(order.tolist()) == list(range(count))
    again = shuffled(count, seed=seed, epoch=epoch, buffer=buffer)
    np.testing.assert_array_equal(order, again)
    for start in range(0, count, buffer):
        rows = np.sort(order[start : start + buffer])
        assert 1 + (np.diff(rows) > 1).sum() <= 18, "places on the disk of one buffer"


def test_a_buffer_shuffles():
    orders = [shuffled(1000, seed=s, epoch=e, buffer=100) for s, e in ((1, 0), (1, 1), (2, 0))]
    for i, order in enumerate(orders):
        assert (np.diff(order) == 1).mean() < 0.1
        assert all((order != other).mean() > 0.9 for other in orders[:i])
    np.testing.assert_array_equal(
        shuffled(50, seed=1, epoch=2, buffer=50), shuffled(50, seed=1, epoch=2)
    )


def test_only_rows_on_disk_are_shuffled_by_buffer():
    config = schema.BucketTrainConfig(batch_size=10, buckets=1)
    rows, targets = rows_of([2] * 100), np.arange(100, dtype=np.int32)

    def order(rows: Ragged) -> list[int]:
        data = (rows, targets)
        feed = BucketFeed(config, data, data, seed=1, buffer=20)
        return [int(i) for _, which in feed.train(0) for i in which]

    assert order(rows) == shuffled(100, seed=1, epoch=0).tolist()
    assert order(on_disk(rows)) == shuffled(100, seed=1, epoch=0, buffer=20).tolist()


@given(st.lists(st.integers(0, 60), max_size=400), st.integers(5, 40))
@few
def test_rare_words_are_forgotten_and_frequent_ones_counted(numbers, distinct):
    texts = [f"w{n}" for n in numbers]
    exact = count_words(texts, tf.strings.split)
    assert dict(exact) == {w: texts.count(w) for w in set(texts)}
    with mock.patch.object(ragged, "CHUNK_ROWS", 1):  # each text a piece of its own
        found = count_words(texts, tf.strings.split, max_distinct=distinct)
    assert len(found) <= distinct
    bound = len(texts) / distinct + 1
    for word, count in exact.items():
        assert count - bound <= found[word] <= count


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def table(path: Path, count: int = 300) -> Path:
    """Rows that fit every task that can keep its data on disk; some of them twice."""
    rng = random.Random(1)
    rows = [["text", "label", "input", "output"]]
    for i in range(count):
        words = " ".join(rng.choices(["ant", "Bee", "cat's", "dog.", "ïd"], k=rng.randint(1, 30)))
        rows.append([f"{words} {i % 250}", rng.choice(["bad", "good"]), words, words[::-1]])
    return write(path, rows)


KEYS = {
    "sentiment": ["data.where={}", "data.labels=null", "text.vocabulary=20"],
    "translation": [
        "data.input=input", "data.output=output", "data.where={}", "model.level=subword",
        "text.vocabulary=400", "text.shared=true",
    ],
    "generation": ["text.format=plain", "train.batch_size=4", "train.window=16"],
}  # fmt: skip


@pytest.mark.parametrize("task", KEYS)
def test_a_task_has_the_same_data_from_disk(task, tmp_path):
    kind, found = get_task(task), {}
    for keep in ("memory", "disk"):
        source = table(tmp_path / "rows.csv")
        overrides = [f"data.source={source}", f"data.keep={keep}", *KEYS[task]]
        overrides += ["data.validation=0.2", "data.test=0.2", "data.max_bad_rows=0.5"]
        config = configs.load(find_config(task, None), get_config(task), overrides)
        splits = kind.load(config)
        processor = kind.fit_processor(config, splits)
        found[keep] = splits, processor, kind.feed(config, processor, splits)
    (left, one, feed), (right, two, fed) = found["memory"], found["disk"]
    assert isinstance(right.train, disk.DiskRecords)
    assert isinstance(left.train, list)
    for split in ("train", "validation", "test"):
        assert list(getattr(right, split)) == getattr(left, split) != []
    assert (left.fingerprint, left.test_fingerprint) == (right.fingerprint, right.test_fingerprint)
    assert left.report == right.report
    one.save(tmp_path / "one")
    two.save(tmp_path / "two")
    for file in (tmp_path / "one").rglob("*.json"):
        assert (
            file.read_text() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_text()
        )
    assert (feed.steps, feed.tokens, feed.padded_tokens) == (
        fed.steps,
        fed.tokens,
        fed.padded_tokens,
    )
    assert same(feed.train(1), fed.train(1)) == feed.steps
    assert same(feed.validation(), fed.validation()) > 0


@pytest.mark.parametrize("task", sorted(set(BUILT_IN) - set(KEYS)))
def test_where_data_cannot_be_kept_on_disk_the_key_is_refused(task):
    with pytest.raises(UserError, match=r"data\.keep: unknown key"):
        configs.load(find_config(task, None), get_config(task), ["data.keep=disk"])


#: Megabytes that are left for the data, and how many times as many there are.
LEFT, TIMES = 14, 10


@pytest.fixture
def large(tmp_path):
    """Folders with data that fit into that memory, and with ten times as much as it."""
    rng = random.Random(1)
    # Few long words: the length of the texts is what counts, and words cost time.
    plain = [" ".join(f"w{rng.randrange(2000):01200}" for _ in range(22)) for _ in range(50)]
    folders = []
    for megabytes in (2, LEFT * TIMES):
        folder = tmp_path / str(megabytes)
        folder.mkdir()
        size = part = 0
        while size < megabytes * 10**6:
            rows = [["text", "label"]]
            for i in range(100):
                label = rng.choice(["bad", "good"])
                rows.append([f"{label} {part} {i} {rng.choice(plain)}", label])
            size += write(folder / f"{part}.csv", rows).stat().st_size
            part += 1
        folders.append(folder)
    return folders


@pytest.mark.thorough  # seconds of reading in a process of its own
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's own memory")
def test_ten_times_the_memory(large, home):
    script = ROOT / "tests/support/outgrown.py"
    keys = [
        "data.where={}", "data.labels=null", "data.shuffle_buffer=2000",
        "data.test=0.02", "data.validation=0.02", "text.vocabulary=1000", "text.max_tokens=8",
        "train.batch_size=256", "train.batch_tokens=null",
    ]  # fmt: skip

    def few_threads_with_small_stacks() -> None:
        # Their stacks would be most of the memory that is counted.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
        resource.setrlimit(
            resource.RLIMIT_STACK, (2**19, resource.getrlimit(resource.RLIMIT_STACK)[1])
        )

    done = subprocess.run(
        # -P: tests/layers is not what `import layers` means.
        [sys.executable, "-P", script, "sentiment", *map(str, large), str(LEFT), *keys],
        # One heap: each thread may otherwise open its own, which is never given back.
        env=os.environ | {"UNFOLD_HOME": str(home), "MALLOC_ARENA_MAX": "1"},
        preexec_fn=few_threads_with_small_stacks, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    found = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert "disk" in found, done.stderr[-2000:]
    rows, batches = map(int, found["disk"].split())
    size = sum(file.stat().st_size for file in large[1].iterdir())
    assert rows * 27_500 > 0.9 * size
    assert batches >= rows // 256
    assert "memory" not in found, "such a limit limits nothing"
    assert done.returncode != 0
