"""The translation task's own parts: attention, encoder and decoder, pairs, the interpreter."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import sacrebleu
import tensorflow as tf

from pipelines.engine.core import plotting
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.bucketing import Buckets, lengths_of, shuffled
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.data.splits import Splits
from pipelines.engine.export import savedmodel
from pipelines.engine.tasks.base import Prediction
from pipelines.engine.tasks.encoder_decoder import decoding_request
from pipelines.engine.tasks.endpoints import compile_endpoint
from pipelines.engine.text.tokenizer import END
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.engine.training.loop import without_autotune
from pipelines.engine.training.losses import MaskedCrossentropy, token_losses
from pipelines.translation import evaluation
from pipelines.translation.config import CONFIG, TranslationConfig, TranslationModelConfig
from pipelines.translation.model import Translator, build
from pipelines.translation.records import Pair
from pipelines.translation.task import TASK, TranslationServing
from tests.support.matrix import thorough_after

CELLS = ["rnn", "gru", "lstm"]
ATTENTION = ["additive", "none"]


def request(inputs, decoding):
    return decoding_request("text", inputs, decoding)


def small(cell="lstm", attention="additive", *, two=True, layers=1, dropout=0.0, tied=True):
    return TranslationModelConfig.model_validate(
        {
            "encoder": {"cell": cell, "units": [8], "bidirectional": two, "embedding": 6,
                        "dropout": dropout},
            "decoder": {"cell": cell, "units": [8] * layers, "embedding": 10, "tied": tied,
                        "attention": attention, "dropout": dropout},
        }
    )  # fmt: skip


def batch(rows=4, steps=5, time=4, seed=0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    read = rng.integers(3, 20, (rows, steps)).astype("int32")
    written = rng.integers(3, 15, (rows, time)).astype("int32")
    for row in range(1, rows):
        read[row, steps - row :] = 0
        written[row, time - row :] = 0
    targets = np.roll(written, -1, axis=1)
    targets[:, -1] = 0
    return {"read": read, "written": written}, targets


def padded(inputs, targets, more=3):
    wider = {k: np.pad(v, [[0, 0], [0, more]]) for k, v in inputs.items()}
    return wider, np.pad(targets, [[0, 0], [0, more]])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("layers", thorough_after(1, [2, 1]))
def test_padding_changes_neither_loss_nor_gradient(cell, attention, layers):
    model = build(small(cell, attention, layers=layers), inputs=20, outputs=15, seed=1)
    inputs, targets = batch()
    loss = MaskedCrossentropy(0.1)
    found = []
    for some, wanted in ((inputs, targets), padded(inputs, targets)):
        with tf.GradientTape() as tape:
            value = loss(wanted, model(some, training=False))
        gradients = tape.gradient(value, model.trainable_variables)
        found.append([value, *map(tf.convert_to_tensor, gradients)])
    for whole, wider in zip(*found, strict=True):
        np.testing.assert_allclose(whole, wider, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_row_does_not_see_the_others(attention):
    model = build(small(attention=attention, layers=2), inputs=20, outputs=15, seed=1)
    inputs, _ = batch()
    together = np.asarray(model(inputs))
    for row in range(len(together)):
        alone = np.asarray(model({k: v[row : row + 1] for k, v in inputs.items()}))
        real = inputs["written"][row] != 0
        np.testing.assert_allclose(alone[0][real], together[row][real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("two", thorough_after(1, [True, False]))
def test_one_token_at_a_time_is_the_same_as_all_at_once(cell, attention, two):
    model = build(small(cell, attention, two=two, layers=2), inputs=20, outputs=15, seed=1)
    inputs, _ = batch(rows=2)
    whole = np.asarray(model(inputs))
    states, attended = model.encode(tf.constant(inputs["read"]))
    for t in range(4):
        ids = tf.constant(inputs["written"][:, t : t + 1])
        logits, states, weights = model.decode(ids, states, attended)
        np.testing.assert_allclose(logits[0, 0], whole[0, t], rtol=1e-4, atol=1e-5)
        if attention == "none":
            assert weights is None
        else:
            np.testing.assert_allclose(np.sum(weights, axis=-1), 1.0, rtol=1e-5)
            assert np.all(np.asarray(weights)[1, :, -1] == 0)  # padding is not looked at


def test_the_state_is_handed_over_as_the_chapter_draws_it_where_it_fits():
    fits = build(small(attention="none", two=False), inputs=20, outputs=15, seed=1)
    assert not [w for w in fits.weights if "bridge" in w.path]
    ids = batch()[0]["read"]
    lstm = next(layer for layer in fits.reader.layers if layer.name == "encoder_1")
    embedded = fits.reader.get_layer("embedding")(ids)
    _, h, c = lstm(embedded, mask=ids != 0)
    states, attended = fits.encode(ids)
    assert attended == []
    np.testing.assert_allclose(states[0], h, rtol=1e-5)
    np.testing.assert_allclose(states[1], c, rtol=1e-5)
    other = build(small(attention="none", two=True), inputs=20, outputs=15, seed=1)
    assert len([w for w in other.weights if "bridge" in w.path]) == 4


@pytest.mark.parametrize("attention", ATTENTION)
def test_at_the_start_every_token_is_as_likely_as_any(attention):
    model = build(small(attention=attention), inputs=20, outputs=15, seed=1)
    inputs, targets = batch(rows=6, seed=2)
    loss = float(MaskedCrossentropy()(targets, model(inputs)))
    assert loss == pytest.approx(math.log(15), rel=0.05)


def test_saved_and_loaded_it_says_the_same(tmp_path):
    model = build(small(layers=2), inputs=20, outputs=15, seed=1)
    inputs, _ = batch()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, Translator)
    np.testing.assert_allclose(model(inputs), again(inputs), rtol=1e-6)


def test_smoothing_is_that_share_of_an_even_answer():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 5)).astype("float32")
    targets = np.array([[1, 4, 0], [2, 3, 1]])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    asked = 0.2 / 5 + 0.8 * np.eye(5)[targets]
    expected = -(asked * np.log(p)).sum(-1) * (targets != 0)
    found, real = token_losses(targets, logits, 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(real, targets != 0)
    assert MaskedCrossentropy.from_config(MaskedCrossentropy(0.2).get_config()).smoothing == 0.2


def sequences(count, *, seed, longest_, words) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 3 + words, rng.integers(1, longest_ + 1)) for _ in range(count)]


def packed(rows) -> Ragged:
    lengths = np.array([len(r) for r in rows], np.int64)
    return Ragged(np.concatenate(rows).astype(np.int32), lengths)


def test_it_learns_to_copy_and_to_reverse():
    """The first token says which of both; new sequences, and every token of them."""
    end, words, count = 2, 4, 1280
    rows = sequences(count + 256, seed=1, longest_=4, words=words)
    turns = [row[0] % 2 == 1 for row in rows]
    turned = [row[::-1] if turn else row for row, turn in zip(rows, turns, strict=True)]
    read = packed(rows).with_suffix(end)
    written, targets = packed(turned).with_prefix(end), packed(turned).with_suffix(end)
    config = TranslationModelConfig.model_validate(
        {
            "encoder": {"cell": "gru", "units": [24], "bidirectional": True, "embedding": 16},
            "decoder": {"cell": "gru", "units": [32], "embedding": 32, "tied": False},
        }
    )
    keras.utils.set_random_seed(1)
    model = build(config, inputs=3 + words, outputs=3 + words, seed=1)
    model.compile(
        optimizer=keras.optimizers.Adam(0.02, global_clipnorm=1.0), loss=MaskedCrossentropy()
    )
    inputs = {"read": read, "written": written}
    buckets = Buckets.fit(lengths_of(inputs, targets), buckets=1, batch_size=32)
    for epoch in range(5):
        order = shuffled(count, seed=1, epoch=epoch)
        model.optimizer.learning_rate = 0.02 * (1 - epoch / 5)
        batches = without_autotune(buckets.batches(inputs, targets, order))
        model.fit(batches, verbose=0, shuffle=False)
    right = []
    for some, wanted in buckets.batches(inputs, targets, np.arange(count, len(rows))):
        best = np.argmax(model({k: v.numpy() for k, v in some.items()}), -1)
        real = wanted.numpy() != 0
        right += [best[real] == wanted.numpy()[real]]
    assert np.concatenate(right).mean() == 1.0


# From string to string

PAIRS = [
    Pair("The dog sleeps.", "Der Hund schläft.", "pairs.tsv:1"),
    Pair("A cat sees the dog.", "Eine Katze sieht den Hund.", "pairs.tsv:2"),
    Pair("What are you doing?", "Was machst du?", "pairs.tsv:3"),
]


def config_of(**more) -> TranslationConfig:
    sections = {
        "data": {"source": "pairs.tsv", "input": "en", "output": "de"},
        "text": {"vocabulary": 300},
        "model": small(layers=2).model_dump(),
        "decoding": {"beam_width": 3, "max_length": 12},
    }
    return CONFIG.model_validate(sections | more)


def interpreter(config: TranslationConfig) -> TranslationServing:
    processor = TASK.fit_processor(config, Splits(PAIRS, PAIRS, PAIRS, "", {}))
    keras.utils.set_random_seed(3)
    return TranslationServing(config, processor, TASK.build(config, processor))


ODD = ["", "   ", "?!…", "漢字 العربية 🙂", "\x00\ufffd", "The dog sleeps."]


@pytest.mark.parametrize(
    ("level", "attention", "compiled"),
    thorough_after(
        4,
        [
            ("subword", "additive", True), ("word", "additive", False), ("word", "none", False),
            ("character", "none", False), ("subword", "none", True), ("word", "additive", True),
            ("word", "none", True), ("character", "none", True),
        ],
    ),
)  # fmt: skip
def test_any_text_has_an_answer_and_no_answer_depends_on_the_others(level, attention, compiled):
    config = config_of(model=small(attention=attention, layers=2).model_dump() | {"level": level})
    found = interpreter(config)
    served = TASK.endpoints(config, found._processor, found._model)["serving_default"]
    # Compiled once for all numbers of texts, as in an export.
    translate = compile_endpoint(served) if compiled else served.function
    # Step by step a long text takes long.
    texts = [*ODD, "dog " * (500 if compiled else 40)]
    together = {k: v.numpy() for k, v in translate(**request(texts, config.decoding)).items()}
    assert together["text"][0] == together["text"][1] == b""
    for row in (0, 3, 5):
        alone = {
            k: v.numpy()[0]
            for k, v in translate(**request(texts[row : row + 1], config.decoding)).items()
        }
        assert alone["text"] == together["text"][row]
        assert alone["score"] == pytest.approx(together["score"][row], rel=1e-4)
        if attention == "additive":
            time, steps = alone["alignment"].shape
            wide = together["alignment"][row]
            np.testing.assert_allclose(alone["alignment"], wide[:time, :steps], atol=1e-5)
            assert not wide[time:].any()
            assert not wide[:, steps:].any()
    for text in together["text"]:
        text.decode()  # valid UTF-8, whatever was written
    for name, value in translate(**request([], config.decoding)).items():
        assert value.shape[0] == 0, name


def test_one_entry_for_each_text_or_one_for_all():
    config = config_of()
    translate = interpreter(config).answer
    texts = tf.constant([p.input for p in PAIRS])
    each = translate(texts, tf.constant([1, 2, 7]), tf.constant([3, 12, 5]))["text"].numpy()
    for row, (width, most) in enumerate([(1, 3), (2, 12), (7, 5)]):
        one = translate(texts, tf.constant([width]), tf.constant([most]))["text"].numpy()
        assert one[row] == each[row]
    # What is out of bounds is brought into them.
    least = translate(texts, tf.constant([-5]), tf.constant([-1]))["text"].numpy()
    assert least.tolist() == [b"", b"", b""]


def test_the_best_of_many_is_the_answer():
    config = config_of()
    question = request([p.input for p in PAIRS], config.decoding)
    answer = interpreter(config).answer(**question)
    np.testing.assert_array_equal(answer["texts"][:, 0], answer["text"])
    np.testing.assert_array_equal(answer["scores"][:, 0], answer["score"])
    assert answer["texts"].shape == (3, config.decoding.beam_width)
    assert np.all(np.diff(answer["scores"].numpy(), axis=1) <= 0)


def test_an_unknown_word_becomes_the_one_that_it_looked_at():
    config = config_of(model=small().model_dump() | {"level": "word"})
    found = interpreter(config)
    ids = tf.constant([[UNKNOWN, 5, UNKNOWN, UNKNOWN, 0]])
    # One word each, and the end mark most of all, which is none.
    weights = tf.constant([np.eye(5)[[1, 0, 2, 3, 0]]], tf.float32)
    weights += [[[0.0, 0.0, 0.0, 0.0, 2.0]]]
    names = found._names(tf.constant(["The Zyx sleeps."]), ids, weights).numpy()[0]
    known = found._processor.output.vocabulary[5 - 2].encode()
    assert names.tolist() == [b" Zyx", known, b" sleeps", b".", b""]
    subword = interpreter(config_of())
    assert subword._names(tf.constant(["Zyx"]), ids, weights).numpy()[0, 0] != b" Zyx"


def test_what_is_served_is_valid_whatever_the_precision(tmp_path):
    """Half precision trains; what is answered is float32, and tokens are UTF-8."""
    config = config_of()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = interpreter(config)
        serve = TASK.endpoints(config, found._processor, found._model)
        answer = serve["serving_default"].function(**request(["A 🙂 漢"], config.decoding))
        savedmodel.write(tmp_path / "m", found._model, serve, found._processor.resources())
    finally:
        keras.config.set_dtype_policy("float32")
    assert answer["alignment"].dtype == answer["score"].dtype == tf.float32
    for name in ("input_tokens", "output_tokens"):
        assert all(isinstance(t.decode(), str) for t in answer[name].numpy()[0])
    names = [c.name for c in savedmodel.mlflow_signature(tmp_path / "m").outputs]
    assert {"text", "score", "alignment"} <= set(names)


def test_the_keys_of_a_config_have_their_effect():
    def model_of(**settings):
        return interpreter(config_of(model=small(**settings).model_dump()))._model

    assert model_of(tied=False).count_params() > model_of(tied=True).count_params()
    assert TASK.objective(config_of(train={"label_smoothing": 0.3}), None).loss.smoothing == 0.3
    dropping = model_of(dropout=0.4)
    for part in (dropping.reader, dropping.decoder):
        rates = {one.rate for one in part.layers if isinstance(one, keras.layers.Dropout)}
        assert rates == {0.4}


@pytest.mark.parametrize(
    ("keys", "lengths"),
    [
        # So wide a beam holds the end at once, and of sums of log p that is the highest.
        ({"length_penalty": 0.0}, {0}),
        ({"length_penalty": 0.0, "min_length": 4}, {4}),
        ({"length_penalty": 2.0, "max_length": 6}, {6}),
    ],
)
def test_the_keys_of_decoding_have_their_effect(keys, lengths):
    model = small().model_dump() | {"level": "character"}
    config = config_of(model=model, decoding={"beam_width": 64, "max_length": 8} | keys)
    answer = interpreter(config).answer(**request([p.input for p in PAIRS], config.decoding))
    assert {len(text.decode()) for text in answer["text"].numpy()} == lengths


def test_a_picture_of_what_was_not_looked_at_is_refused(tmp_path):
    with pytest.raises(UserError, match="without attention"):
        TASK.writers["attention"](Prediction("", [], [], {"text": "x"}), tmp_path / "a.png")


def test_what_is_read_and_written():
    config = config_of()
    processor = TASK.fit_processor(config, Splits(PAIRS, PAIRS, PAIRS, "", {}))
    rows, targets = processor.encode(["The  dog\tsleeps. "], ["Der Hund schläft."])
    assert processor.input.detokenize(rows["read"][0][None]).numpy()[0] == b"The dog sleeps."
    assert rows["read"][0][-1] == rows["written"][0][0] == targets[0][-1] == END
    np.testing.assert_array_equal(rows["written"][0][1:], targets[0][:-1])
    assert processor.output.detokenize(targets[0][None]).numpy()[0].decode() == "Der Hund schläft."


def test_one_vocabulary_for_both_sides(tmp_path):
    config = config_of(text={"vocabulary": 320, "shared": True})
    processor = TASK.fit_processor(config, Splits(PAIRS, PAIRS, PAIRS, "", {}))
    assert processor.input.vocabulary == processor.output.vocabulary
    processor.save(tmp_path)
    again = TASK.processor.load(tmp_path)
    assert again.input.vocabulary == processor.input.vocabulary
    separate = TASK.fit_processor(config_of(), Splits(PAIRS, PAIRS, PAIRS, "", {}))
    assert separate.input.vocabulary != separate.output.vocabulary


# Records


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def load(source, **data):
    return TASK.load(config_of(data={"source": source, "input": "en", "output": "de", **data}))


def test_pairs_are_tidied_counted_and_kept_apart(tmp_path):
    lines = [f"This is text {i}.\tDas  ist Text {i}." for i in range(200)]
    lines += ["no output\t", "\tno input", "THIS IS TEXT 7.\tDas ist Text 7, noch einmal."]
    lines += [f"{'long ' * 100}\tkurz", *lines[:2]]
    source = write(tmp_path / "pairs.tsv", "\n".join(["en\tde", *lines]) + "\n")
    splits = load(source, max_bad_rows=0.02)
    assert splits.report[source]["unusable"] == {"'de' is empty": 1, "'en' is empty": 1}
    assert splits.report[source]["left_out"] == 1
    assert splits.report[source]["repeated"] == 2
    with pytest.raises(UserError, match="the config leaves out 204 of its 206 rows"):
        load(source, max_characters=3, max_bad_rows=0.1)
    assert all("  " not in p.output for p in splits.train)
    sides = [
        {p.input.casefold() for p in s} for s in (splits.train, splits.validation, splits.test)
    ]
    assert not sides[0] & (sides[1] | sides[2])
    assert not sides[1] & sides[2]
    with pytest.raises(UserError, match="2 of 206 rows cannot be used"):
        load(source, max_bad_rows=0.001)


def test_what_is_held_out_is_not_trained_on(tmp_path):
    train = write(tmp_path / "a.tsv", "en\tde\n" + "".join(f"T {i}.\tD {i}.\n" for i in range(50)))
    test = write(tmp_path / "b.tsv", "en\tde\nt 7.\tAnders.\nNew.\tNeu.\n")
    splits = load(train, test=test, validation=0.1)
    assert "T 7." not in {p.input for p in splits.train + splits.validation}
    assert (
        splits.report["train_dropped_as_held_out"] + splits.report["validation_dropped_as_held_out"]
        == 1
    )


def test_what_could_not_work_is_refused():
    with pytest.raises(ValueError, match=r"encoder\.cell: feedforward has no state"):
        config_of(model={"encoder": {"cell": "feedforward"}})
    with pytest.raises(ValueError, match="feedforward has no state and attention: none"):
        config_of(model={"decoder": {"cell": "feedforward", "attention": "none"}})
    with pytest.raises(ValueError, match=r"min_length \(9\) is above max_length \(4\)"):
        config_of(decoding={"min_length": 9, "max_length": 4})


# Scores and pictures


def test_scores_are_those_of_sacrebleu_and_by_length_covers_all():
    inputs = [f"{'w ' * n}end" for n in range(1, 40)]
    references = [f"this is the true sentence number {n} of all" for n in range(1, 40)]
    found, how = evaluation.scores(references, references)
    assert found == {"bleu": pytest.approx(100), "chrf2": pytest.approx(100)}
    assert "tok:13a" in how.rows[0][1]
    outputs = [r.replace("true", "false") for r in references]
    expected = sacrebleu.corpus_bleu(outputs, [references]).score
    assert evaluation.scores(outputs, references)[0]["bleu"] == pytest.approx(expected)
    lengths = evaluation.by_length(inputs, outputs, references)
    assert sum(row[2] for row in lengths.rows) == len(inputs)
    assert len(evaluation.by_length(["one"], ["eins"], ["eins"]).rows) == 1
    evaluation.draw_by_length(lengths)


def test_the_interval_of_bleu_is_that_of_bleu_of_resampled_texts():
    rng = np.random.default_rng(2)
    references = [f"this is the true sentence number {n} of all" for n in range(40)]
    words = [r.split() for r in references]
    outputs = [" ".join(w if rng.random() > 0.2 else "no" for w in text) for text in words]
    outputs[3] = ""
    low, high = evaluation.bleu_interval(outputs, references, "13a", seed=5)
    scores = []
    for drawn in (rng.integers(40, size=40) for _ in range(300)):
        mine, true = ([texts[i] for i in drawn] for texts in (outputs, references))
        scores.append(sacrebleu.corpus_bleu(mine, [true]).score)
    width = high - low
    assert np.quantile(scores, [0.025, 0.975]) == pytest.approx([low, high], abs=0.2 * width)
    assert evaluation.bleu_interval(references, references, "13a", seed=5) == (
        pytest.approx(100), pytest.approx(100)
    )  # fmt: skip
    assert evaluation.bleu_interval(outputs[:9], references[:9], "13a", seed=5) is None


def test_best_and_worst_are_at_the_ends():
    references = [f"the sentence number {n}" for n in range(100)]
    outputs = [r if i % 3 else "quite another" for i, r in enumerate(references)]
    table = evaluation.best_and_worst(references, outputs, references)
    assert len(table.rows) == 40
    assert table.rows[0][0] == "100.0"
    assert all(row[2] == "quite another" for row in table.rows[-20:])
    assert len(evaluation.best_and_worst(["a"], ["b"], ["c"]).rows) == 1


def test_the_picture_of_attention_puts_parts_of_words_together():
    weights = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    figure = plotting.attention_map(weights, [" wal", "king", ""], [" geh", "end"])
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["walking", "end"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["gehend"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.5, 0.5]])
    plotting.attention_map(np.zeros((0, 1)), [""], [])
