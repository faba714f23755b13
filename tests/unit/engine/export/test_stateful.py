"""Sequences read in pieces: whatever the pieces, the answer is that of one pass."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from layers import GRU, LSTM, Bidirectional, SimpleRNN
from layers.streaming import StreamingState
from pipelines.engine.export import savedmodel, stateful
from pipelines.engine.text.tokenizer import DocumentTokenizer
from pipelines.engine.text.words import Tokenizer
from pipelines.forecasting import model as forecasters
from pipelines.forecasting import task as forecasting
from pipelines.forecasting.config import CONFIG as FORECASTING
from pipelines.forecasting.processor import Scales
from pipelines.forecasting.series import Series, SeriesSlice
from pipelines.generation import task as generation
from pipelines.generation.config import CONFIG as GENERATION
from pipelines.sentiment import task as sentiment
from pipelines.sentiment.config import CONFIG as SENTIMENT
from pipelines.sentiment.processor import TextClasses
from tests.support.matrix import thorough_after

WORDS = ["good", "bad", "film", "the", "ünder", "日", "😀", "don't", "'", "!", "<", "br", "ab"]


def shaken(model: keras.Model, seed: int = 0) -> keras.Model:
    """With weights that are not small, so that nothing is right by chance."""
    rng = np.random.default_rng(seed)
    for w in model.trainable_weights:
        w.assign(rng.normal(size=w.shape, scale=0.5))
    return model


def compiled(endpoint: savedmodel.Endpoint):
    return tf.function(
        endpoint.function, input_signature=list(endpoint.inputs.values()), autograph=False
    )


class Stream:
    """A client of ``start`` and ``step``: it keeps the state, and nothing else."""

    def __init__(self, endpoints: dict[str, savedmodel.Endpoint]) -> None:
        self._start, self._step = (compiled(endpoints[name]) for name in ("start", "step"))
        self._inputs = endpoints["step"].inputs

    def begin(self, rows: int = 1) -> None:
        self.state = {k: tf.repeat(v, rows, axis=0) for k, v in self._start().items()}

    def send(self, **given: object) -> dict[str, np.ndarray]:
        whole = given | self.state
        tensors = [tf.constant(whole[n], s.dtype) for n, s in self._inputs.items()]
        answer = self._step(*tensors)
        self.state = {k: v for k, v in answer.items() if k.startswith(stateful.STATE)}
        assert set(self.state) == {k for k in self._inputs if k.startswith(stateful.STATE)}
        return {k: v.numpy() for k, v in answer.items() if k not in self.state}


# Layers


@pytest.mark.parametrize("layer", [SimpleRNN, LSTM, GRU])
@pytest.mark.parametrize("initial", ["zeros", "learned"])
def test_a_layer_goes_on_where_it_was(layer, initial):
    inputs = keras.Input((None, 3))
    outputs = layer(4, initial=initial, return_sequences=True, name="r")(inputs)
    model = shaken(keras.Model(inputs, outputs))
    x = np.random.default_rng(0).normal(size=(2, 9, 3)).astype("float32")
    state, parts = StreamingState(), []
    for piece in np.split(x, [1, 5], axis=1):
        state = StreamingState(state.after)
        with state.active():
            parts.append(np.asarray(model(piece)))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), model(x), atol=1e-6)
    np.testing.assert_allclose(state.after["r"][0], parts[-1][:, -1], atol=1e-6)


@pytest.mark.parametrize("layer", [Bidirectional(LSTM(3)), GRU(3, go_backwards=True)])
def test_what_reads_from_the_end_cannot_read_in_pieces(layer):
    with StreamingState().active(), pytest.raises(ValueError, match="reads from the end"):
        layer(np.zeros((1, 2, 3), "float32"))


# Texts


def cut(text: str, places: list[int]) -> list[str]:
    ends = [0, *sorted(p % (len(text) + 1) for p in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends)]


ANY = " \n\t.!<>/'’abdgotfilmBDrü日本ก็\u0301\ufe0f😀\x00-&="
TEXT = st.text(st.sampled_from(ANY), max_size=40) | st.sampled_from(
    [
        "The good film<br />the bad film, don't <a href='good'>film</a>",
        "a <b and < c <br " + "x" * 210 + " good> film",
        "日本語のfilm 'good' ''bad''!!",
        "กำลัง ดี film",
    ]
)  # fmt: skip


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer(WORDS)


@functools.cache
def read():
    """The ids of what was settled of a text, and of its end; and all of them, of one pass."""
    spec, reads = tf.TensorSpec([None], tf.string), tokenizer()

    @tf.function(input_signature=[spec, spec, spec], autograph=False)
    def step(open_, piece, so_far):
        settled, open_ = reads.split_pending(open_ + piece)
        zero = tf.constant([0])
        found, _ = reads.encode_continuations([settled, open_], zero)
        return open_, *found, reads.padded(so_far)

    return step


@given(text=TEXT, places=st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=200)
def test_words_are_those_of_the_whole_text_wherever_it_is_cut(text, places):
    ids, open_, so_far = [], tf.constant([""]), ""
    for piece in cut(text, places):
        so_far += piece
        open_, *found = read()(open_, tf.constant([piece]), tf.constant([so_far]))
        settled, rest, whole = ([i for i in f.numpy()[0] if i] for f in found)
        ids += settled
        assert ids + rest == whole


def test_what_is_not_settled_is_short():
    """The state does not grow with the text."""
    for text in ("the film " * 500, "日本語" * 500, "!" * 1000, "กำลัง" * 300, "<" * 500):
        _, open_ = tokenizer().split_pending(tf.constant([text]))
        assert len(open_.numpy()[0].decode()) <= 8


# Sentiment


def classifier(**model):
    config = SENTIMENT.model_validate(
        {
            "data": {"source": "none.csv"},
            "text": {"max_tokens": 12, "keep": "head"},
            "model": {"units": [5, 4], "embedding": 6, **model},
        }
    )
    processor = TextClasses(config.text, WORDS, ["no", "yes", "perhaps"])
    network = shaken(sentiment.TASK.build(config, processor))
    return network, processor, sentiment.TASK.endpoints(config, processor, network)


@pytest.mark.parametrize(
    "model",
    thorough_after(
        1,
        [
            {
                "cell": "gru",
                "initial": "learned",
                "pool": ["last", "mean", "max"],
                "ngrams": {"order": 3, "buckets": 64},
            },
            {"cell": "lstm", "pool": ["max"]},
            {"cell": "rnn", "pool": ["last"], "truncate": 2},
            {
                "cell": "feedforward",
                "pool": ["mean", "last"],
                "ngrams": {"order": 1, "buckets": 64},
            },
        ],
    ),
)
def test_a_review_in_pieces_is_the_review(model):
    _, _, endpoints = classifier(**model)
    stream = Stream(endpoints)
    serve = compiled(endpoints["serving_default"])

    @given(text=TEXT, places=st.lists(st.integers(0, 300), max_size=4))
    @settings(max_examples=15)
    def check(text, places):
        other = "the bad film! " * 3
        rows = [cut(text, places), cut(other, [*places, 7][-4:])]
        longest = max(map(len, rows))
        rows = [r + [""] * (longest - len(r)) for r in rows]
        stream.begin(rows=2)
        for i in range(longest):
            found = stream.send(text=[r[i] for r in rows])
            whole = serve(tf.constant(["".join(r[: i + 1]) for r in rows]))
            np.testing.assert_allclose(
                found["probabilities"], whole["probabilities"], rtol=1e-4, atol=1e-6
            )
            assert found["label"].tolist() == whole["label"].numpy().tolist()

    check()


def test_what_reads_both_ways_has_no_step():
    *_, endpoints = classifier(bidirectional=True, pool=["max"])
    assert set(endpoints) == {"serving_default", "labels"}


# Generation

LINES = "The sun rises in the east.\nIt sets in the west, every day.\n"


@functools.cache
def writer(level: str, cell: str):
    config = GENERATION.model_validate(
        {
            "data": {"source": "x.txt"},
            "model": {"level": level, "cell": cell, "units": [9], "embedding": 6},
            "text": {"vocabulary": 300},
            "sampling": {"top_k": 7},
        }
    )
    processor = DocumentTokenizer.fit([LINES] * 3, config.text, level)
    model = shaken(generation.TASK.build(config, processor))
    endpoints = generation.TASK.endpoints(config, processor, model)
    return Stream(endpoints), {
        name: tf.function(
            endpoints[name].function,
            input_signature=[*endpoints[name].inputs.values()],
            autograph=False,
        )
        for name in ("serving_default", "next")
    }


@pytest.mark.parametrize(
    ("level", "cell"),
    thorough_after(1, [("subword", "rnn"), ("character", "lstm"), ("word", "gru")]),
)
def test_a_text_in_pieces_is_gone_on_with_as_the_text_is(level, cell):
    stream, whole = writer(level, cell)

    @given(
        text=st.text(st.sampled_from("The sun\n west. \tö"), max_size=25),
        places=st.lists(st.integers(0, 100), max_size=4),
        counts=st.lists(st.integers(0, 6), min_size=1, max_size=4),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=15)
    def check(text, places, counts, seed):
        how = {"temperature": [1.5], "seed": [seed]}
        stream.begin()
        for piece in cut(text, places):
            found = stream.send(text=[piece], max_length=[0], **how)
        expected = whole["next"](tf.constant([text]))
        np.testing.assert_allclose(
            found["probabilities"], expected["probabilities"], rtol=1e-3, atol=1e-6
        )
        assert found["text"].tolist() == [b""]
        written = text
        for count in counts:
            found = stream.send(text=[""], max_length=[count], **how)
            written += found["text"][0].decode()
        at_once = (
            whole["serving_default"](
                tf.constant([text]),
                tf.constant([1.5]),
                tf.constant([sum(counts)]),
                tf.constant([seed]),
            )["text"]
            .numpy()[0]
            .decode()
        )
        if level == "subword":  # what is written of a character in two pieces is none
            written, at_once = (t.encode("ascii", "ignore") for t in (written, at_once))
        assert written == at_once

    check()


def test_an_end_stays_one_until_there_is_more_to_read():
    stream, _ = writer("subword", "rnn")
    how = {"temperature": [3.0], "seed": [5]}
    stream.begin()
    for _ in range(50):
        found = stream.send(text=[""], max_length=[9], **how)
        if found["ended"][0]:
            break
    assert found["ended"][0]
    again = stream.send(text=[""], max_length=[9], **how)
    assert (again["text"][0], again["ended"][0]) == (b"", True)
    assert not stream.send(text=["The"], max_length=[0], **how)["ended"][0]


# Forecasting

DAY = 86_400


def forecaster(**sections):
    """Endpoints, and those of the same model that reads a history of any length at once."""
    sections = {"data": {"source": "x.csv"}} | sections
    sections["model"] = {"units": [6], "history": 12, "horizon": 3} | sections.get("model", {})
    config = FORECASTING.model_validate(sections)
    columns = 1 + len(config.data.columns) + 2 * len(config.data.ratios)
    rng = np.random.default_rng(3)
    values = 100 * np.exp(np.cumsum(rng.normal(size=(200, columns), scale=0.02), axis=0))
    series = Series("A", np.arange(200) * DAY, values, "A:1")
    scales = Scales.fit(config, [SeriesSlice(series, 0, 150)], [SeriesSlice(series, 150, 200)])
    model = shaken(forecasters.build(config, scales.arrays, seed=1))
    patient = config.model_copy(update={"model": config.model.model_copy(update={"history": 500})})
    return values, *(forecasting.TASK.endpoints(one, scales, model) for one in (config, patient))


SECTIONS = [
    {
        "data": {"source": "x.csv", "columns": {"v": "log_returns"}, "ratios": {"h": "l"}},
        "model": {"cell": "gru", "scale": "training", "half_lives": [], "level": True},
    },
    {"model": {"cell": "lstm", "linear": 4, "half_lives": [3.0, 11.0], "embedding": 2}},
    {
        "model": {
            "cell": "rnn",
            "decode": "autoregressive",
            "linear": 3,
            "calendar": ["weekday"],
        },
    },
    {"data": {"source": "x.csv", "values": "levels"}, "model": {"cell": "feedforward"}},
]


@pytest.mark.parametrize("sections", thorough_after(2, SECTIONS))
def test_a_series_in_pieces_is_the_series(sections):
    values, endpoints, patient = forecaster(**sections)
    stream = Stream(endpoints)
    whole, longer = (compiled(e["serving_default"]) for e in (endpoints, patient))
    specs = endpoints["serving_default"].inputs

    def asked(start: int, stop: int) -> dict[str, object]:
        given = {
            "history": np.float32(values[None, start:stop]), "lengths": [stop - start],
            "series": ["A"], "time": np.arange(start, stop)[None] * DAY,
            "future": np.arange(stop, stop + 3)[None] * DAY, "paths": [20], "seed": [7],
        }  # fmt: skip
        return {name: given[name] for name in specs}

    @given(begin=st.integers(0, 100), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5))
    @settings(max_examples=15)
    def check(begin, sizes):
        stream.begin()
        at = begin
        for size in sizes:
            found = stream.send(**asked(at, at + size))
            at += size
            serve = whole if at - begin <= 12 else longer
            once = asked(begin, at)
            expected = serve(*[tf.constant(once[n], s.dtype) for n, s in specs.items()])
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=2e-4)

    check()
