"""Explanations agree with the layers' traces and with weights set by hand."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

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
    Attention,
    Explanation,
    LayerTrace,
    Segment,
    to_dict,
)
from pipelines.engine.explain.page import files, page, stem
from pipelines.engine.tasks.base import Task
from pipelines.forecasting.task import TASK as FORECASTING
from pipelines.generation.task import TASK as GENERATION
from pipelines.sentiment import task as sentiment_task
from pipelines.sentiment.config import SentimentConfig, SentimentTextConfig
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.task import TASK as SENTIMENT
from pipelines.sentiment.task import probabilities
from pipelines.translation.task import TASK as TRANSLATION

VOCABULARY = ["film", "good", "bad", "wipe", "the", "a", "was", "and", "plot", "end"]
#: More than the exponent of a float32 has room for: σ(±FAR) is exactly 1 or 0.
FAR = 200.0


def classes(most=None, keep="ends"):
    config = SentimentTextConfig(min_count=1, max_tokens=most, keep=keep)
    return TextClasses(config, VOCABULARY, ["bad", "good"])


def sentiment(**model):
    """Config, processor and a model that has learned nothing."""
    config = SentimentConfig.model_validate(
        {
            "data": {"source": "none.csv"},
            "model": {"units": [5], "embedding": 4, **model},
            "train": {"buckets": 2},
        }
    )
    return config, classes(), SENTIMENT.build(config, classes())


class Reader:
    """One bidirectional model; it is compiled once."""

    def __init__(self):
        self.config, self.processor, self.model = sentiment(bidirectional=True)

    def read(self, text, processor=None):
        explanation = SENTIMENT.explain(self.config, processor or self.processor, self.model, text)
        return explanation.segments[0]


@pytest.fixture(scope="module")
def two_ways():
    return Reader()


# -- known gates -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_hand():
    """An LSTM of two units whose gates are known at every word: unit 0 writes +1 at "good" and −1
    at "bad", "wipe" makes it forget, and "end" makes it speak; unit 1 never writes."""
    config, processor, model = sentiment(units=[2], embedding=12)
    ids = {word: i for i, word in enumerate(VOCABULARY, 2)}
    model.get_layer("embedding").set_weights([np.eye(12)])
    i, f, c, o = range(0, 8, 2)
    U, W, b = np.zeros((12, 8)), np.zeros((2, 8)), np.zeros(8)
    b[[i, i + 1, o, o + 1]], b[[f, f + 1]] = -FAR, FAR
    for word, sign in (("good", 1), ("bad", -1)):
        U[ids[word], i], U[ids[word], c] = 2 * FAR, sign * FAR
    U[ids["wipe"], f] = -2 * FAR
    U[ids["end"], o] = 2 * FAR
    layer = model.get_layer("recurrent_1")
    layer.set_weights([U, W, b])
    text = "the good film bad bad wipe good end a end"
    explanation = SENTIMENT.explain(config, processor, model, text)
    words = text.split()
    wanted = {
        "input_gate": [w in ("good", "bad") for w in words],
        "forget_gate": [w != "wipe" for w in words],
        "output_gate": [w == "end" for w in words],
        "candidate": [{"good": 1, "bad": -1}.get(w, 0) for w in words],
        "cell_state": [0, 1, 1, 0, -1, 0, 1, 1, 1, 1],
    }
    one_hot = np.eye(12, dtype="float32")[[ids[w] for w in words]][None]
    return explanation, wanted, layer.trace(one_hot), words


def test_a_trace_shows_the_gates_that_were_put_in(by_hand):
    _, wanted, traced, _ = by_hand
    for name, values in wanted.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(traced[name])[0, :, 0], values)
    assert not np.any(ops.convert_to_numpy(traced["input_gate"])[..., 1])


def test_so_do_the_data_of_the_picture(by_hand):
    explanation, wanted, _, words = by_hand
    (part,) = to_dict(explanation)["parts"]
    assert part["tokens"] == words
    (layer,) = part["layers"]
    for name, values in wanted.items():
        assert [row[0] for row in layer["values"][name]] == values, name
    spoken = [round(np.tanh(1), 4) if w == "end" else 0 for w in words]
    assert [row[0] for row in layer["values"]["hidden_state"]] == spoken
    # "end" turns the unit on, what is behind it off again; the other unit never moves.
    assert layer["order"] == [0, 1]
    first = layer["switches"][0]
    assert first["unit"] == 0
    assert [at["place"] for at in first["inputs"]] == [7, 8, 9]
    assert (first["inputs"][0]["before"], first["inputs"][0]["after"]) == (0.0, 0.7616)


def test_so_does_the_page(by_hand):
    explanation, wanted, _, _ = by_hand
    text = page(explanation, task="sentiment", run="by-hand")
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    (layer,) = json.loads(raw)["parts"][0]["layers"]
    for name, values in wanted.items():
        packed = layer["values"][name]
        whole = np.frombuffer(base64.b64decode(packed["data"]), "<i2").reshape(packed["shape"])
        np.testing.assert_allclose(whole[:, 0] * packed["scale"], values, atol=1e-12)


def test_the_page_shows_them_in_a_browser(by_hand, browser, tmp_path):
    explanation, wanted, _, words = by_hand
    write = files(lambda: explanation, "it", task="sentiment", run="by-hand")["it.html"]
    write(tmp_path / "it.html")
    shown = browser.open((tmp_path / "it.html").as_uri())
    for name, values in wanted.items():
        read = f"part.tokens.map((_, t) => layer.values.{name}.at(t, 0))"
        assert shown.evaluate(read) == pytest.approx([float(v) for v in values])
    # The mouse says what it points at,
    x, y = shown.evaluate("(b => [b.x, b.y])(canvas.getBoundingClientRect())")
    cell, above = shown.evaluate("[CELL, top_]")
    shown.move(x + shown.evaluate("LEFT") + 3.5 * cell, y + above + 25)
    assert shown.evaluate("[step, part.tokens[step], lines[row].name]") == [3, "bad", "input gate"]
    shown.evaluate("go(0, 0)")
    # and the keyboard moves through the picture.
    shown.evaluate("document.getElementById('picture').focus()")
    for _ in range(words.index("wipe")):
        shown.press("ArrowRight")
    said = shown.evaluate("document.getElementById('said').innerText")
    assert re.search(r"6 of 10: wipe", said)
    assert re.search(r"forget gate\s+0\.500", said)  # the mean of one unit that forgets, one not
    shown.click("#switches button")
    assert shown.evaluate("[step, lines[row].unit, rows.value]") == [7, 0, "hidden_state"]
    said = shown.evaluate("document.getElementById('said').innerText")
    assert re.search(r"hidden state, magnitude\s+0\.381\s+0\.762", said)
    shown.click("#tokens button:nth-child(3)")
    assert shown.evaluate("[step, part.tokens[step]]") == [2, "film"]
    assert shown.messages == []
    assert len(shown.requests) == 1
    # What is drawn is what is there: the forget gate of "wipe" and of its neighbour.
    shown.evaluate("(rows.value = 'forget_gate', arrange(), go(0, 0, true))")
    colours = shown.evaluate(
        "[5, 6].map(t => [...canvas.getContext('2d').getImageData(LEFT + t * CELL + 5, top_ + 5, 1,"
        " 1).data])"
    )
    assert colours[0][:3] == [255, 255, 255]
    assert colours[1][:3] == [31, 95, 168]
    shown.close()


@pytest.fixture(scope="module")
def parts(two_ways):
    return two_ways.read("the good film " * 23), two_ways.read("a plot")


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_a_page_fits_a_phone_and_asks_nobody_for_anything(browser, tmp_path, parts, width, dark):
    """Of two parts, with attention, and longer than the window is wide."""
    long, short = parts
    weights = np.array([[0.9, 0.1, 0, 0], [0.25] * 4], np.float32)
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    seen = Attention(weights, grid=(2, 2), image=png)
    looking = replace(short, attention=seen, top_tokens=[[("a", 0.5)], []])
    explanation = Explanation('<b>"&\n', "ü", [long, looking])
    write = files(lambda: explanation, "it", task="sentiment", run="1")["it.html"]
    write(tmp_path / "it.html")
    shown = browser.open((tmp_path / "it.html").as_uri(), width=width, dark=dark)
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert shown.evaluate("document.querySelector('h1').textContent.trim()") == '<b>"&'
    shown.evaluate("(go(68, 0, true), 0)")
    assert shown.evaluate("scroller.scrollLeft + scroller.clientWidth >= LEFT + 69 * CELL")
    shown.evaluate("(document.getElementById('part').value = 1, choosePart())")
    shown.wait("part.attention.image !== undefined")
    assert shown.evaluate("!document.getElementById('attention').hidden")
    light = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert shown.messages == []
    assert len(shown.requests) == 1
    shown.close()


# -- steps and tokens ------------------------------------------------------------------------


@settings(max_examples=8)
@given(
    words=st.lists(st.sampled_from([*VOCABULARY, "zebra"]), min_size=1, max_size=14),
    keep=st.sampled_from(["head", "tail", "ends"]),
    most=st.sampled_from([None, 1, 4, 7]),
)
def test_every_step_is_the_word_it_is_called(two_ways, words, keep, most):
    processor, model = classes(most, keep), two_ways.model
    part = two_ways.read(" ".join(words), processor)
    kept = processor.tokenizer.words(np.array([" ".join(words)])).to_list()[0]
    assert list(part.tokens) == [w.decode() for w in kept]
    assert len(part.tokens) == min(len(words), most or 99)
    table = ops.convert_to_numpy(model.get_layer("embedding").embeddings)
    vectors = np.stack(
        [table[VOCABULARY.index(w) + 2 if w in VOCABULARY else 1] for w in part.tokens]
    )
    for name, call in part.recorder.calls.items():
        read = ops.convert_to_numpy(call.inputs)[0]
        np.testing.assert_array_equal(read[::-1] if "backward" in name else read, vectors)
    for word, detail in zip(part.tokens, part.details, strict=True):
        assert bool(detail) == (word == "zebra")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_layers_are_shown_as_they_trace_themselves(cell):
    """Both directions in the order of the input, padding left out, whatever the cell."""
    _, _, model = sentiment(cell=cell, bidirectional=True, units=[5, 3])
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


def test_units_that_switch_and_what_switches_them():
    rng = np.random.default_rng(0)
    state = rng.normal(size=(9, 12)).astype("float32")
    before = np.concatenate([np.zeros((1, 12), "float32"), state])[:-1]
    layer = LayerTrace("recurrent_1", "LSTM", False, {"hidden_state": state}, before)
    turns = np.abs(state - before)
    assert list(layer.units_by_change()) == sorted(range(12), key=lambda u: -turns[:, u].mean())
    found = layer.largest_changes()
    assert len(found) == SHOWN_UNITS
    for unit, at in found:
        assert len(at) == SHOWN_CHANGES
        assert at[0].place == turns[:, unit].argmax()
        assert at[0].after == state[at[0].place, unit]
        moved = [abs(s.after - s.before) for s in at]
        assert moved == sorted(moved, reverse=True)


def test_a_text_without_words_is_a_mistake():
    config, processor, model = sentiment()
    with pytest.raises(UserError, match="no word in it"):
        SENTIMENT.explain(config, processor, model, "<br />")


def test_the_curves_are_what_would_be_answered_to_the_words_so_far():
    config, processor, model = sentiment(
        cell="gru", bidirectional=True, pool=["mean", "max"], ngrams={"order": 2, "buckets": 64}
    )
    rng = np.random.default_rng(0)
    model.get_layer("ngrams").set_weights([rng.normal(size=(64, 2))])
    text = "a good film and a bad plot"
    explanation = SENTIMENT.explain(config, processor, model, text)
    words = text.split()
    begun = processor.encode([" ".join(words[:n]) for n in range(1, len(words) + 1)])
    wanted = probabilities(model, begun, config)
    for label, curve in explanation.segments[0].curves.items():
        np.testing.assert_allclose(curve, wanted[:, processor.labels.index(label)], atol=1e-6)
    best = wanted[-1].argmax()
    assert explanation.answer == f"{processor.labels[best]} ({wanted[-1, best]:.1%})"
    assert next(iter(explanation.segments[0].curves)) == processor.labels[best]


def test_of_a_very_long_text_some_beginnings_are_answered(two_ways, monkeypatch):
    text = "a good film and a bad plot"
    every = next(iter(two_ways.read(text).curves.values()))
    monkeypatch.setattr(sentiment_task, "_BEGINNINGS", 3)
    some = next(iter(two_ways.read(text).curves.values()))
    assert list(np.flatnonzero(~np.isnan(some))) == [0, 3, 6]
    np.testing.assert_allclose(some[::3], every[::3], atol=1e-6)


def test_a_model_without_memory_has_curves_only():
    config, processor, model = sentiment(cell="feedforward")
    explanation = SENTIMENT.explain(config, processor, model, "a good film")
    assert explanation.segments[0].layers == []
    assert len(plots.draw(explanation).subfigs) == 1
    assert '"layers": []' in page(explanation, task="sentiment", run="1")


# -- the other tasks -------------------------------------------------------------------------


def prepared(task: Task, config, splits):
    """Config, processor and a model that has learned nothing."""
    processor = task.prepare(config, splits)
    return config, processor, task.build(config, processor)


@pytest.fixture(scope="module")
def translation():
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
    config, processor, model = prepared(TRANSLATION, config, splits)
    # Large weights: one that has learned nothing finds many texts nearly equally likely.
    rng = np.random.default_rng(0)
    model.set_weights([2 * rng.normal(size=w.shape) for w in model.get_weights()])
    return config, processor, model


def test_a_translation_is_shown_as_it_is_spoken(translation):
    config, processor, model = translation
    explanation = TRANSLATION.explain(config, processor, model, "a bad film")
    reads, writes = explanation.segments
    assert "".join(reads.tokens) == "a bad film[end]"
    assert {a.name for a in reads.layers} == {"forward_encoder_1", "backward_encoder_1"}
    # The words, their likelihood and what they looked at are those that a server answers with.
    interpreter = TRANSLATION.endpoints(config, processor, model)["serving_default"].function
    import tensorflow as tf

    served = interpreter(tf.constant(["a bad film"]), tf.constant([3]), tf.constant([6]))
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
    for some, token, p in zip(writes.top_tokens, writes.tokens, chosen, strict=True):
        assert [q for _, q in some] == sorted((q for _, q in some), reverse=True)
        assert dict(some).get(token, p) == pytest.approx(p)
    with pytest.raises(UserError, match="nothing in it to translate"):
        TRANSLATION.explain(config, processor, model, " ")


def test_a_text_is_shown_character_by_character():
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
    config, processor, model = prepared(GENERATION, config, splits)
    explanation = GENERATION.explain(config, processor, model, "The\\nsun")
    (part,) = explanation.segments
    assert explanation.answer.startswith("The\nsun")
    assert "".join(part.tokens) == "[start]" + explanation.answer
    assert [d != "" for d in part.details] == [False] * 8 + [True] * (len(part.tokens) - 8)
    (layer,) = part.layers
    assert layer.values["forget_gate"].shape == (len(part.tokens), 6)
    curve = part.curves["this token"]
    assert np.isnan(curve[0])
    assert to_dict(explanation)["parts"][0]["curves"]["this token"][0] is None
    for some, token, p in zip(part.top_tokens[1:], part.tokens[1:], curve[1:], strict=True):
        assert dict(some).get(token, p) == pytest.approx(p)
    assert GENERATION.to_explain(config, splits, 2) == [documents[0].text]


@pytest.mark.parametrize("decode", ["direct", "autoregressive"])
def test_a_forecast_is_shown_tick_by_tick(decode, tmp_path):
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
    config, processor, model = prepared(FORECASTING, config, splits)
    model.reader.set_weights(
        [w + 0.1 * rng.normal(size=w.shape) for w in model.reader.get_weights()]
    )
    one, other = FORECASTING.to_explain(config, splits, 5)
    assert (one.name, other.name, len(one)) == ("AAA", "BBB", 12)
    explanation = FORECASTING.explain(config, processor, model, one)
    (part,) = explanation.segments
    assert part.tokens[-1] == str(days[-1])
    assert all(np.all(layer.values["hidden_state"] != 0) for layer in part.layers)
    low, median, high = (part.curves[k] for k in ("10 %", "median", "90 %"))
    assert np.all((low < median) & (median < high))
    np.testing.assert_array_equal(part.curves["came"][:-1], one.values[1:, 0])
    # Nothing is known before it came: less of the series, the same curves.
    begun = replace(one, times=one.times[:7], values=one.values[:7])
    shorter = FORECASTING.explain(config, processor, model, begun).segments[0]
    np.testing.assert_allclose(shorter.curves["median"], median[:7], rtol=1e-5)
    # A file is its first series, or the one that is named.
    file = str(tmp_path / "prices.csv")
    assert FORECASTING.explain(config, processor, model, file).input == explanation.input
    assert FORECASTING.explain(config, processor, model, f"{file}#BBB").input.startswith("BBB, ")
    with pytest.raises(UserError, match="no series 'CCC'; there are: AAA, BBB"):
        FORECASTING.explain(config, processor, model, f"{file}#CCC")


# -- pictures and files ----------------------------------------------------------------------


def test_a_picture_of_a_long_text_shows_where_most_happens():
    config, processor, model = sentiment()
    part = SENTIMENT.explain(config, processor, model, "a " * 150).segments[0]
    curve = np.full(150, 0.5)
    curve[100:] = 0.9
    start = plots.busiest(replace(part, curves={"good": curve}), part.layers)
    assert start <= 100 < start + plots.STEPS
    assert 0 <= start <= 150 - plots.STEPS
    state = plots.busiest(replace(part, curves={}), part.layers)
    assert state == 0  # the state of always the same word moves most in the beginning


def test_labels_are_short_and_visible():
    assert [plots.label(t) for t in (" the", "\n", " ", "a b", "x" * 20)] == [
        "the", "⏎", "␣", "a␣b", "x" * 13 + "…"
    ]  # fmt: skip


def test_files_are_made_of_one_explanation(tmp_path):
    config, processor, model = sentiment()
    calls = []

    def explain():
        calls.append(1)
        return SENTIMENT.explain(config, processor, model, "a $good$ film_{ and </script> _^")

    written = files(explain, "explained_1", task="sentiment", run="run-1")
    assert not calls
    for name, write in written.items():
        write(tmp_path / name)
    assert len(calls) == 1
    assert (tmp_path / "explained_1.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "explained_1.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert "default-src 'none'" in text
    assert stem("A Good film, and more than that", "1").startswith("a-good-film-and-more-")
    assert stem("x", "1") != stem("x", "2") != stem("y", "2")
