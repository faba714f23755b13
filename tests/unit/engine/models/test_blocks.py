"""What models are built of, against NumPy; and what a whole classifier must be able to do."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from layers import GRU, LSTM, Bidirectional, SimpleRNN
from pipelines.engine.data.ragged import PADDING
from pipelines.engine.models.blocks import (
    Committee,
    NgramScores,
    TokenDropout,
    ValidPool,
    layer_table,
)
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.sentiment.config import SentimentModelConfig
from pipelines.sentiment.model import build
from tests.support.matrix import thorough_after

CELLS = ["rnn", "lstm", "gru", "feedforward"]
RECURRENT = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}
LENGTHS = [4, 0, 7, 1, 6]
TIME = 7


def numpy(tensor) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def valid_steps(lengths, time: int = TIME) -> np.ndarray:
    return np.arange(time) < np.asarray(lengths)[:, None]


def random_ids(lengths, time: int = TIME, *, vocabulary: int = 20, seed: int = 0) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(2, vocabulary, (len(lengths), time))
    return np.where(valid_steps(lengths, time), ids, PADDING).astype(np.int32)


def small(cell: str = "lstm", **changes) -> SentimentModelConfig:
    return SentimentModelConfig(**{"cell": cell, "units": [6], "embedding": 5} | changes)


def classifier(config: SentimentModelConfig, *, classes: int = 3, seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return build(config, vocabulary=20, classes=classes, seed=seed)


# N-grams beside the recurrent model


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ngram_scores_count_every_ngram_once(order):
    """Every distinct n-gram has one row of w: the score is what a dictionary would give."""
    layer = NgramScores(2, order, 2**20)
    layer.build((None, None))
    layer.set_weights([normal(2**20, 2)])
    ids = random_ids(LENGTHS)
    got, rows = numpy(layer(ids)), {}
    for row, n in zip(ids, LENGTHS, strict=True):
        for k in range(order):
            for start in range(n - k):
                gram = tuple(row[start : start + k + 1].tolist())
                # Of the n-gram alone: its longer score less that of its shorter parts.
                rows[gram] = None
    weights = {}
    for gram in sorted(rows, key=len):
        alone = numpy(layer(np.array([gram], np.int32)))[0] * np.sqrt(len(gram)) / layer.scale
        parts = sum(
            weights[gram[i:j]]
            for i in range(len(gram))
            for j in range(i + 1, len(gram) + 1)
            if j - i < len(gram)
        )
        weights[gram] = alone - parts
    for row, n, scores in zip(ids, LENGTHS, got, strict=True):
        total = np.zeros(2)
        for k in range(order):
            for start in range(n - k):
                total = total + weights[tuple(row[start : start + k + 1].tolist())]
        np.testing.assert_allclose(
            scores, layer.scale * total / np.sqrt(max(n, 1)), rtol=1e-3, atol=1e-3
        )


def test_order_of_words_matters_to_ngrams_only():
    ids, turned = np.array([[5, 6, 7]], np.int32), np.array([[7, 6, 5]], np.int32)
    for order, same in [(1, True), (2, False)]:
        layer = NgramScores(2, order, 999)
        layer.build((None, None))
        layer.set_weights([normal(999, 2)])
        assert np.allclose(numpy(layer(ids)), numpy(layer(turned)), atol=1e-5) == same


def test_ngrams_are_hashed_in_32_bits_that_wrap_around():
    """So a model trained on one backend counts the same on another, and on a server."""
    layer = NgramScores(2, 3, 2**20)
    layer.build((None, None))
    w = normal(2**20, 2)
    layer.set_weights([w])
    ids = np.random.default_rng(0).integers(1, 30_000, 40).astype(np.int32)
    factor, total = np.int32(layer._factor), np.zeros(2)
    with np.errstate(over="ignore"):
        for t in range(len(ids)):
            gram = np.int32(0)
            for k in range(min(t + 1, 3)):
                gram = gram * factor + ids[t - k]
                total += w[(gram * factor + np.int32(k)) % np.int32(2**20)]
    expected = layer.scale * total / np.sqrt(len(ids))
    np.testing.assert_allclose(numpy(layer(ids[None]))[0], expected, rtol=1e-4, atol=1e-3)


def test_padding_adds_no_ngram():
    layer = NgramScores(3, 3, 1000)
    layer.build((None, None))
    layer.set_weights([normal(1000, 3)])
    ids = random_ids(LENGTHS)
    longer = np.pad(ids, [(0, 0), (0, 4)])
    np.testing.assert_allclose(numpy(layer(longer)), numpy(layer(ids)), rtol=1e-5, atol=1e-5)


def test_committee_is_the_mean_of_probabilities_and_teaches_one_member_a_row():
    logits = normal(64, 2, 3)
    committee = Committee(seed=3)
    members = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(
        np.exp(numpy(committee(logits))), members.mean(axis=1), rtol=1e-5, atol=1e-6
    )
    taught = np.exp(numpy(committee(logits, training=True)))
    by_member = [np.isclose(taught, members[:, m], atol=1e-5).all(axis=1) for m in (0, 1)]
    assert (by_member[0] ^ by_member[1]).all()
    assert 16 < by_member[0].sum() < 48


# Pooling


@pytest.mark.parametrize("kinds", [["last"], ["mean"], ["max"], ["max", "last", "mean"]])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_pool_equals_numpy(kinds, bidirectional):
    hidden = normal(len(LENGTHS), TIME, 6)

    def pooled(kind: str, row: np.ndarray) -> np.ndarray:
        if not len(row):
            return np.zeros(6, np.float32)
        if kind == "last" and bidirectional:
            return np.concatenate([row[-1, :3], row[0, 3:]])
        return {"last": row[-1], "mean": row.mean(axis=0), "max": row.max(axis=0)}[kind]

    expected = [
        np.concatenate([pooled(kind, row[:n]) for kind in kinds])
        for row, n in zip(hidden, LENGTHS, strict=True)
    ]
    layer = ValidPool(kinds, bidirectional)
    got = layer(hidden, valid_steps(LENGTHS))
    np.testing.assert_allclose(numpy(got), expected, rtol=1e-6, atol=1e-6)
    assert layer.compute_output_shape(hidden.shape, LENGTHS) == got.shape


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 5))
@settings(max_examples=25)
def test_pool_sees_nothing_of_the_padding(lengths, more):
    kinds = ["last", "mean", "max"]
    hidden = normal(len(lengths), 4, 2)
    padded = np.concatenate([hidden, np.full((len(lengths), more, 2), 1e3, np.float32)], axis=1)
    np.testing.assert_array_equal(
        numpy(ValidPool(kinds)(hidden, valid_steps(lengths, 4))),
        numpy(ValidPool(kinds)(padded, valid_steps(lengths, 4 + more))),
    )


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", sorted(RECURRENT))
def test_last_is_what_the_layer_returns_without_sequences(cell, bidirectional):
    inputs, valid = normal(len(LENGTHS), TIME, 3), valid_steps(LENGTHS)

    def make(*, return_sequences: bool) -> keras.layers.Layer:
        layer = RECURRENT[cell](4, return_sequences=return_sequences, seed=1)
        return Bidirectional(layer) if bidirectional else layer

    sequences, last = make(return_sequences=True), make(return_sequences=False)
    hidden = sequences(inputs, mask=valid)
    expected = last(inputs, mask=valid)
    last.set_weights(sequences.get_weights())
    expected = last(inputs, mask=valid)
    pooled = ValidPool(["last"], bidirectional)(hidden, valid)
    np.testing.assert_allclose(numpy(pooled), numpy(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kinds", [[], ["first"], ["last", "sum"]])
def test_pool_of_another_kind_is_refused(kinds):
    with pytest.raises(ValueError, match="kinds: any of last, mean, max"):
        ValidPool(kinds)


def test_pool_keeps_its_settings():
    layer = ValidPool(["max", "last"], bidirectional=True, name="pool")
    again = ValidPool.from_config(layer.get_config())
    assert (again.kinds, again.bidirectional, again.name) == (["max", "last"], True, "pool")


# Token dropout


def test_token_dropout_replaces_its_share_of_valid_tokens():
    ids = random_ids([1_000] * 20 + [0] * 20, 1_000)
    out = numpy(TokenDropout(0.3, seed=1)(ids, training=True))
    changed = out != ids
    assert (out[changed] == UNKNOWN).all()
    assert not changed[ids == PADDING].any()
    # Twenty thousand draws: five standard deviations are 0.016.
    assert abs(changed[:20].mean() - 0.3) < 0.016
    assert out.dtype == ids.dtype


def test_token_dropout_differs_by_step_and_repeats_by_seed():
    ids = random_ids([50] * 4, 50)
    layers = [TokenDropout(0.5, seed=s) for s in (1, 1, 2)]
    first, again, other = (numpy(layer(ids, training=True)) for layer in layers)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != numpy(layers[0](ids, training=True))).any()


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True), (0.0, False)])
def test_token_dropout_that_is_off(rate, training):
    ids = random_ids([9] * 9, 9)
    np.testing.assert_array_equal(numpy(TokenDropout(rate)(ids, training=training)), ids)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
def test_token_dropout_of_an_impossible_rate(rate):
    with pytest.raises(ValueError, match=r"rate: in \[0, 1\)"):
        TokenDropout(rate)


# The classifier


@pytest.mark.parametrize(
    ("bidirectional", "cell"),
    thorough_after(
        4,
        [*zip([False, True] * 2, CELLS, strict=True), *zip([True, False] * 2, CELLS, strict=True)],
    ),
)
def test_any_config_gives_logits(cell, bidirectional):
    config = small(
        cell, units=[6, 4], bidirectional=bidirectional, pool=["last", "mean", "max"],
        token_dropout=0.1, embedding_dropout=0.1, dropout=0.1,
        truncate=None if cell == "feedforward" else 3,
    )  # fmt: skip
    model = classifier(config)
    for time in (1, TIME):
        ids = random_ids([min(n, time) for n in LENGTHS], time)
        assert numpy(model(ids)).shape == (len(LENGTHS), 3)
        assert np.isfinite(numpy(model(ids, training=True))).all()
    directions = 2 if bidirectional else 1
    assert model.get_layer("V").kernel.shape == (4 * directions * 3, 3)


@pytest.mark.parametrize("classes", [2, 50])
@pytest.mark.parametrize("cell", CELLS)
def test_untrained_model_knows_nothing(cell, classes):
    model = classifier(small(cell), classes=classes)
    ids = random_ids([TIME] * 64)
    truth = np.random.default_rng(1).integers(0, classes, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(truth, model(ids))
    np.testing.assert_allclose(numpy(loss), np.log(classes), rtol=0.05)


@pytest.mark.parametrize("cell", thorough_after(2, ["feedforward", "lstm", "gru", "rnn"]))
def test_tiny_batch_is_learned_by_heart(cell):
    model = classifier(small(cell, pool=["max"]))
    ids, truth = random_ids([4, 7, 1, 6, 3, 5]), np.array([0, 1, 2, 0, 1, 2])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(loss(truth, model(ids))) > 1
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=loss)
    for _ in range(40):
        model.train_on_batch(ids, truth)
    assert float(loss(truth, model(ids))) < 0.05
    np.testing.assert_array_equal(numpy(model(ids)).argmax(axis=-1), truth)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_does_not_change_logits(cell):
    config = small(cell, bidirectional=True, units=[4, 3], pool=["last", "mean", "max"])
    model, ids = classifier(config), random_ids(LENGTHS)
    padded = np.pad(ids, [[0, 0], [0, 9]], constant_values=PADDING)
    np.testing.assert_allclose(numpy(model(padded)), numpy(model(ids)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_a_row_is_scored_as_if_it_were_alone(cell):
    model = classifier(small(cell, bidirectional=True))
    ids = random_ids(LENGTHS)
    together = numpy(model(ids))
    for i, n in enumerate(LENGTHS):
        alone = numpy(model(ids[i : i + 1, : max(n, 1)]))
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_only_recurrent_cells_read_the_order_of_words(cell):
    model, ids = classifier(small(cell, pool=["mean"])), random_ids([TIME] * 4)
    moved = np.abs(numpy(model(ids[:, ::-1])) - numpy(model(ids))).max()
    assert moved < 1e-6 if cell == "feedforward" else moved > 1e-4


def test_dropout_is_off_when_nothing_is_trained():
    config = small(token_dropout=0.5, embedding_dropout=0.5, dropout=0.5)
    model, ids = classifier(config), random_ids(LENGTHS)
    np.testing.assert_array_equal(numpy(model(ids)), numpy(model(ids)))
    assert (numpy(model(ids, training=True)) != numpy(model(ids, training=True))).any()


def test_same_seed_same_weights():
    config = small(bidirectional=True, units=[4, 4])
    first, again, other = (classifier(config, seed=s) for s in (1, 1, 2))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.get_weights()[0] != other.get_weights()[0]).any()
    # Layers of one shape do not start from the same weights.
    hidden = [w for w in first.get_weights() if w.shape == (4, 16)]
    assert len(hidden) == 4
    assert len({w.tobytes() for w in hidden}) == 4


@pytest.mark.parametrize("initial", thorough_after(1, ["learned", "random", "zeros"]))
def test_model_file_holds_the_whole_model(initial, tmp_path):
    config = small(
        "gru", bidirectional=True, units=[4, 3], pool=["last", "max"], token_dropout=0.1,
        initial=initial, truncate=3,
    )  # fmt: skip
    model, ids = classifier(config), random_ids(LENGTHS)
    expected = numpy(model(ids))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.to_json() == model.to_json()
    np.testing.assert_allclose(numpy(loaded(ids)), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_gives_float32_logits_close_to_the_full_ones(policy):
    config = small("lstm", bidirectional=True, pool=["last", "mean", "max"])
    full = classifier(config)
    keras.config.set_dtype_policy(policy)
    try:
        half = classifier(config)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(full.get_weights())
    logits = half(random_ids(LENGTHS))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert half.get_layer("pool").compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(numpy(logits), numpy(full(random_ids(LENGTHS))), atol=0.01)


def test_the_table_of_layers_counts_every_weight_once():
    frozen = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="inner")])
    frozen.trainable = False
    deep = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(31))])
    inputs = keras.Input((3,))
    outputs = keras.layers.Dropout(0.1, name="dropout")(deep(frozen(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2, name="V")(outputs))
    table = layer_table(model)
    assert table.rows == [
        ["inner", "Dense", 16, "no"],
        [deep.name, "Sequential", 31 * 20, "yes"],
        ["dropout", "Dropout", 0, ""],
        ["V", "Dense", 10, "yes"],
    ]
    assert sum(row[2] for row in table.rows) == model.count_params()
