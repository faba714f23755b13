"""Explanations agree with the layers' traces, with weights set by hand and with the endpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from layers.recorder import Recorder
from pipelines.engine.core.errors import UserError
from pipelines.engine.explain import plots
from pipelines.engine.explain.explanation import (
    SHOWN_CHANGES,
    SHOWN_UNITS,
    LayerTrace,
    Segment,
    to_dict,
)
from pipelines.engine.explain.page import page
from pipelines.engine.tasks.base import Task
from pipelines.forecasting.task import TASK as FORECASTING
from pipelines.generation.task import TASK as GENERATION
from pipelines.sentiment import task as sentiment_task
from pipelines.sentiment.task import TASK as SENTIMENT
from pipelines.sentiment.task import probabilities
from pipelines.translation.task import TASK as TRANSLATION
from tests.support.explaining import (
    VOCABULARY,
    HandSet,
    Reader,
    text_classes,
    untrained_sentiment,
)

# -- known gates -----------------------------------------------------------------------------


def test_trace_shows_gates_set_by_hand(by_hand: HandSet) -> None:
    _, expected, traced, _ = by_hand
    for name, values in expected.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(traced[name])[0, :, 0], values)
    assert not np.any(ops.convert_to_numpy(traced["input_gate"])[..., 1])


def test_json_data_show_gates_set_by_hand(by_hand: HandSet) -> None:
    explanation, expected, _, words = by_hand
    (part,) = to_dict(explanation)["parts"]
    assert part["tokens"] == words
    (layer,) = part["layers"]
    for name, values in expected.items():
        assert [row[0] for row in layer["values"][name]] == values, name
    spoken = [round(np.tanh(1), 4) if w == "end" else 0 for w in words]
    assert [row[0] for row in layer["values"]["hidden_state"]] == spoken
    # "end" turns unit 0 on, and the next word off again; unit 1 never changes.
    assert layer["order"] == [0, 1]
    first = layer["switches"][0]
    assert first["unit"] == 0
    assert [at["place"] for at in first["inputs"]] == [7, 8, 9]
    assert (first["inputs"][0]["before"], first["inputs"][0]["after"]) == (0.0, 0.7616)


# -- steps and tokens ------------------------------------------------------------------------


@settings(max_examples=8)
@given(
    words=st.lists(st.sampled_from([*VOCABULARY, "zebra"]), min_size=1, max_size=14),
    keep=st.sampled_from(["head", "tail", "ends"]),
    most=st.sampled_from([None, 1, 4, 7]),
)
def test_every_step_is_the_word_in_its_label(
    two_ways: Reader, words: list[str], keep: str, most: int | None
) -> None:
    processor, model = text_classes(most, keep), two_ways.model
    segment = two_ways.read(" ".join(words), processor)
    kept = processor.tokenizer.words(np.array([" ".join(words)])).to_list()[0]
    assert list(segment.tokens) == [w.decode() for w in kept]
    assert len(segment.tokens) == min(len(words), most or 99)
    table = ops.convert_to_numpy(model.get_layer("embedding").embeddings)
    vectors = np.stack(
        [table[VOCABULARY.index(w) + 2 if w in VOCABULARY else 1] for w in segment.tokens]
    )
    for name, call in segment.recorder.calls.items():
        read = ops.convert_to_numpy(call.inputs)[0]
        np.testing.assert_array_equal(read[::-1] if "backward" in name else read, vectors)
    for word, detail in zip(segment.tokens, segment.details, strict=True):
        assert bool(detail) == (word == "zebra")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_layers_agree_with_their_traces(cell: str) -> None:
    """Both directions in the order of the input, padding left out, whatever the cell."""
    _, _, model = untrained_sentiment(cell=cell, bidirectional=True, units=[5, 3])
    ids = np.array([[4, 3, 2, 8, 0, 0]], np.int32)
    with Recorder().recording() as recorder:
        model(ids, training=False)
    layers = Segment("reads", "", ["a"] * 4, recorder, {}).layers
    assert [(a.name, a.backward) for a in layers] == [
        ("forward_recurrent_1", False), ("backward_recurrent_1", True),
        ("forward_recurrent_2", False), ("backward_recurrent_2", True),
    ]  # fmt: skip
    first = model.get_layer("bidirectional_recurrent_1")
    x = model.get_layer("embedding")(ids)
    traced = first.trace(x, lengths=np.array([4]))
    for layer, way in zip(layers, ("forward", "backward"), strict=False):
        assert set(layer.values) == set(traced[way]) - {"pre_activation"}
        for name, values in layer.values.items():
            whole = ops.convert_to_numpy(traced[way][name])[0]
            np.testing.assert_allclose(values, whole[:4], atol=1e-6)
    back = layers[1]
    np.testing.assert_array_equal(back.before[-1], 0)
    np.testing.assert_array_equal(back.before[:-1], back.values["hidden_state"][1:])
    with pytest.raises(ValueError, match="4 real steps, but 3 tokens"):
        _ = Segment("reads", "", ["a"] * 3, recorder, {}).layers


def test_largest_changes() -> None:
    rng = np.random.default_rng(0)
    state = rng.normal(size=(9, 12)).astype("float32")
    before = np.concatenate([np.zeros((1, 12), "float32"), state])[:-1]
    layer = LayerTrace("recurrent_1", "LSTM", False, {"hidden_state": state}, before)
    turns = np.abs(state - before)
    assert list(layer.units_by_change()) == sorted(range(12), key=lambda u: -turns[:, u].mean())
    changes = layer.largest_changes()
    assert len(changes) == SHOWN_UNITS
    for unit, at in changes:
        assert len(at) == SHOWN_CHANGES
        assert at[0].place == turns[:, unit].argmax()
        assert at[0].after == state[at[0].place, unit]
        moved = [abs(s.after - s.before) for s in at]
        assert moved == sorted(moved, reverse=True)


def test_text_without_words_is_an_error() -> None:
    config, processor, model = untrained_sentiment()
    with pytest.raises(UserError, match="no word in it"):
        SENTIMENT.explain(config, processor, model, "<br />")


def test_curves_are_the_answers_to_the_words_so_far() -> None:
    config, processor, model = untrained_sentiment(
        cell="gru", bidirectional=True, pool=["mean", "max"], ngrams={"order": 2, "buckets": 64}
    )
    rng = np.random.default_rng(0)
    model.get_layer("ngrams").set_weights([rng.normal(size=(64, 2))])
    text = "a good film and a bad plot"
    explanation = SENTIMENT.explain(config, processor, model, text)
    words = text.split()
    begun = processor.encode([" ".join(words[:n]) for n in range(1, len(words) + 1)])
    expected = probabilities(model, begun, config)
    for label, curve in explanation.segments[0].curves.items():
        np.testing.assert_allclose(curve, expected[:, processor.labels.index(label)], atol=1e-6)
    best = expected[-1].argmax()
    assert explanation.answer == f"{processor.labels[best]} ({expected[-1, best]:.1%})"
    assert next(iter(explanation.segments[0].curves)) == processor.labels[best]


def test_very_long_text_has_answers_at_some_steps(
    two_ways: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a good film and a bad plot"
    every = next(iter(two_ways.read(text).curves.values()))
    monkeypatch.setattr(sentiment_task, "_BEGINNINGS", 3)
    some = next(iter(two_ways.read(text).curves.values()))
    assert list(np.flatnonzero(~np.isnan(some))) == [0, 3, 6]
    np.testing.assert_allclose(some[::3], every[::3], atol=1e-6)


def test_feed_forward_model_has_only_curves() -> None:
    config, processor, model = untrained_sentiment(cell="feedforward")
    explanation = SENTIMENT.explain(config, processor, model, "a good film")
    assert explanation.segments[0].layers == []
    assert len(plots.draw(explanation).subfigs) == 1
    assert '"layers": []' in page(explanation, task="sentiment", run="1")


# -- the other tasks -------------------------------------------------------------------------


def untrained(task: Task, config: Any, splits: Any) -> tuple[Any, Any, Any]:
    """Config, processor and untrained model."""
    processor = task.fit_processor(config, splits)
    return config, processor, task.build(config, processor)


@pytest.fixture(scope="module")
def translation() -> tuple[Any, Any, Any]:
    from pipelines.engine.data.splits import Splits
    from pipelines.translation.records import Pair

    config = TRANSLATION.config.model_validate(
        {
            "data": {"source": "none.tsv"},
            "text": {"vocabulary": 400},
            "model": {
                "level": "character",
                "encoder": {"units": [5], "embedding": 4, "bidirectional": True},
                "decoder": {"units": [5, 3], "embedding": 4, "cell": "gru"},
            },
            "decoding": {"min_length": 4, "max_length": 6, "beam_width": 3},
        }
    )
    pairs = [Pair("a good film", "ein guter Film", "a:1"), Pair("bad", "schlecht", "a:2")]
    splits = Splits(pairs, pairs, pairs, fingerprint="", test_fingerprint="", report={})
    config, processor, model = untrained(TRANSLATION, config, splits)
    # Large weights, because an untrained model finds many texts nearly equally likely.
    rng = np.random.default_rng(0)
    model.set_weights([2 * rng.normal(size=w.shape) for w in model.get_weights()])
    return config, processor, model


def test_translation_agrees_with_the_endpoint(translation: tuple[Any, Any, Any]) -> None:
    config, processor, model = translation
    explanation = TRANSLATION.explain(config, processor, model, "a bad film")
    reads, writes = explanation.segments
    assert "".join(reads.tokens) == "a bad film[end]"
    assert {a.name for a in reads.layers} == {"forward_encoder_1", "backward_encoder_1"}
    # Words, probabilities and attention are those of the serving signature.
    endpoint = TRANSLATION.endpoints(config, processor, model)["serving_default"].function
    import tensorflow as tf

    served = endpoint(tf.constant(["a bad film"]), tf.constant([3]), tf.constant([6]))
    assert explanation.answer == served["text"].numpy()[0].decode()
    assert "".join(writes.tokens[:-1]) == explanation.answer
    assert writes.tokens[-1] == "[end]"
    chosen = np.concatenate(list(writes.curves.values()))
    length = len(writes.tokens) ** config.decoding.length_penalty
    assert np.log(chosen).sum() / length == pytest.approx(float(served["score"][0]), abs=1e-4)
    assert writes.attention.positions == list(reads.tokens)
    np.testing.assert_allclose(writes.attention.weights.sum(axis=1), 1, atol=1e-5)
    alignment = served["alignment"].numpy()[0, : len(writes.tokens) - 1]
    np.testing.assert_allclose(writes.attention.weights[:-1], alignment, atol=1e-5)
    assert {a.name: a.cell for a in writes.layers} == {"decoder_1": "GRU", "decoder_2": "GRU"}
    for tokens, token, p in zip(writes.top_tokens, writes.tokens, chosen, strict=True):
        assert [q for _, q in tokens] == sorted((q for _, q in tokens), reverse=True)
        assert dict(tokens).get(token, p) == pytest.approx(p)
    with pytest.raises(UserError, match="nothing in it to translate"):
        TRANSLATION.explain(config, processor, model, " ")


def test_generated_text_is_explained_character_by_character() -> None:
    from pipelines.engine.data.splits import Splits
    from pipelines.generation.records import Document

    config = GENERATION.config.model_validate(
        {
            "data": {"source": "none.txt"},
            "model": {"units": [6], "embedding": 4},
            "train": {"batch_size": 2},
            "sampling": {"max_length": 9, "temperature": 1.0},
        }
    )
    documents = [Document("The sun rises.\nIn the east.", "a:1")]
    splits = Splits(documents, documents, documents, fingerprint="", test_fingerprint="", report={})
    config, processor, model = untrained(GENERATION, config, splits)
    explanation = GENERATION.explain(config, processor, model, "The\\nsun")
    (segment,) = explanation.segments
    assert explanation.answer.startswith("The\nsun")
    assert "".join(segment.tokens) == "[start]" + explanation.answer
    assert [d != "" for d in segment.details] == [False] * 8 + [True] * (len(segment.tokens) - 8)
    (layer,) = segment.layers
    assert layer.values["forget_gate"].shape == (len(segment.tokens), 6)
    curve = segment.curves["this token"]
    assert np.isnan(curve[0])
    assert to_dict(explanation)["parts"][0]["curves"]["this token"][0] is None
    for tokens, token, p in zip(segment.top_tokens[1:], segment.tokens[1:], curve[1:], strict=True):
        assert dict(tokens).get(token, p) == pytest.approx(p)
    assert GENERATION.explanation_examples(config, splits, 2) == [documents[0].text]


@pytest.mark.parametrize("decode", ["direct", "autoregressive"])
def test_forecast_is_explained_step_by_step(decode: str, tmp_path: Path) -> None:
    from pipelines.engine.data.splits import Splits

    rng = np.random.default_rng(0)
    days = np.busday_offset("2020-01-01", np.arange(160))
    rows = ["date,ticker,close"]
    for name in ("AAA", "BBB"):
        prices = 50 * np.exp(np.cumsum(0.02 * rng.standard_normal(160)))
        rows += [f"{day},{name},{p:.4f}" for day, p in zip(days, prices, strict=True)]
    (tmp_path / "prices.csv").write_text("\n".join(rows) + "\n")
    config = FORECASTING.config.model_validate(
        {
            "data": {"source": str(tmp_path / "prices.csv"), "series": "ticker"},
            "model": {
                "units": [4], "history": 12, "horizon": 3, "decode": decode, "linear": 4,
                "calendar": ["weekday"], "embedding": 2,
            },
        }
    )  # fmt: skip
    splits = FORECASTING.load(config)
    assert isinstance(splits, Splits)
    config, processor, model = untrained(FORECASTING, config, splits)
    model.reader.set_weights(
        [w + 0.1 * rng.normal(size=w.shape) for w in model.reader.get_weights()]
    )
    one, other = FORECASTING.explanation_examples(config, splits, 5)
    assert (one.name, other.name, len(one)) == ("AAA", "BBB", 12)
    explanation = FORECASTING.explain(config, processor, model, one)
    (segment,) = explanation.segments
    assert segment.tokens[-1] == str(days[-1])
    assert all(np.all(layer.values["hidden_state"] != 0) for layer in segment.layers)
    low, median, high = (segment.curves[k] for k in ("10 %", "median", "90 %"))
    assert np.all((low < median) & (median < high))
    np.testing.assert_array_equal(segment.curves["came"][:-1], one.values[1:, 0])
    # No look-ahead: a shorter series gives the same curves.
    begun = replace(one, times=one.times[:7], values=one.values[:7])
    shorter = FORECASTING.explain(config, processor, model, begun).segments[0]
    np.testing.assert_allclose(shorter.curves["median"], median[:7], rtol=1e-5)
    # A file means its first series, or the one named after #.
    file = str(tmp_path / "prices.csv")
    assert FORECASTING.explain(config, processor, model, file).input == explanation.input
    assert FORECASTING.explain(config, processor, model, f"{file}#BBB").input.startswith("BBB, ")
    with pytest.raises(UserError, match="no series 'CCC'; there are: AAA, BBB"):
        FORECASTING.explain(config, processor, model, f"{file}#CCC")
