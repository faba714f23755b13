"""Additive attention: its equation in NumPy, padding, and rows with nothing to look at."""

import keras
import numpy as np
import pytest
from keras import ops

from layers import AdditiveAttention

BATCH, STEPS, TIME, QUERY, FEATURES, UNITS = 3, 4, 6, 5, 7, 8


def given(seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(STEPS, QUERY), (TIME, UNITS), (TIME, FEATURES)]
    query, keys, memory = (rng.normal(size=(BATCH, *s)).astype("float32") for s in shapes)
    mask = np.arange(TIME)[None] < np.array([TIME, 2, 0])[:, None]
    return query, keys, memory, mask


def built(seed=1, **settings):
    layer = AdditiveAttention(UNITS, **settings)
    layer(*map(ops.convert_to_tensor, given()))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") for w in layer.weights])
    return layer


def test_equals_the_equations():
    layer = built()
    query, keys, memory, mask = given()
    W, v = layer.get_weights()
    contexts, weights = map(ops.convert_to_numpy, layer(query, keys, memory, mask))
    for row in range(BATCH):
        real = int(mask[row].sum())
        for t in range(STEPS):
            scores = np.array([v @ np.tanh(query[row, t] @ W + k) for k in keys[row, :real]])
            expected = np.exp(scores - scores.max(initial=0.0))
            expected /= expected.sum() or 1.0
            np.testing.assert_allclose(weights[row, t, :real], expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(weights[row, t, real:], 0.0)
            context = expected @ memory[row, :real] if real else np.zeros(FEATURES)
            np.testing.assert_allclose(contexts[row, t], context, rtol=1e-4, atol=1e-5)


def test_padding_is_ignored():
    layer = built()
    query, keys, memory, mask = given()
    other_keys, other_memory = keys.copy(), memory.copy()
    other_keys[~mask], other_memory[~mask] = 9.0, -9.0
    for one, other in zip(
        layer(query, keys, memory, mask), layer(query, other_keys, other_memory, mask), strict=True
    ):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other), rtol=1e-6
        )


def test_keys_of_another_size_are_rejected():
    query, keys, memory, mask = given()
    with pytest.raises(ValueError, match="keys must be of size 9"):
        AdditiveAttention(9)(query, keys, memory, mask)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_stays_finite(policy):
    layer = AdditiveAttention(UNITS, dtype=policy)
    contexts, weights = layer(*given())
    assert keras.backend.standardize_dtype(contexts.dtype) == policy.removeprefix("mixed_")
    assert np.isfinite(ops.convert_to_numpy(ops.cast(contexts, "float32"))).all()
    sums = ops.convert_to_numpy(ops.sum(ops.cast(weights, "float32"), axis=-1))
    np.testing.assert_allclose(sums[:2], 1.0, atol=0.02)


def test_a_model_with_it_is_saved_and_loaded(tmp_path):
    inputs = [keras.Input(a.shape[1:], dtype=str(a.dtype)) for a in given()]
    model = keras.Model(inputs, AdditiveAttention(UNITS, seed=3)(*inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    values = list(given())
    for one, other in zip(model(values), again(values), strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other), rtol=1e-6
        )
