"""Helpers for the tests of the layers: random layers, and gradients on either backend."""

import functools

import keras
import numpy as np
from keras import ops

import layers

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

KINDS = ("SimpleRNN", "LSTM", "GRU", "GRU before")
BATCH, TIME, INPUTS, UNITS = 4, 6, 3, 5


def fewer_on_jax(cases):
    """Return all cases; on JAX, which compiles each one, every third: the equations are shared."""
    return list(cases) if keras.backend.backend() == "tensorflow" else list(cases)[::3]


def make(kind, module=layers, inputs=INPUTS, units=UNITS, weights_seed=1, **settings):
    """Return a built layer of ``layers`` or ``keras.layers`` with random weights and biases."""
    if kind == "GRU before":
        kind, settings = "GRU", settings | {"reset_after": False}
    if settings.get("dtype") == "float64" and keras.backend.backend() == "jax":
        import jax

        # keras.ops.tanh computes in float32 on JAX whatever it is given.
        settings = {"activation": jax.numpy.tanh} | settings
    layer = getattr(module, kind)(units, **settings)
    layer.build((BATCH if settings.get("stateful") else None, None, inputs))
    randomise(layer, weights_seed)
    return layer


def randomise(layer, seed=1):
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(scale=0.6, size=w.shape) for w in layer.weights])


def data(seed=0, batch=BATCH, time=TIME, inputs=INPUTS, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(batch, time, inputs)).astype(dtype)


def random_states(layer, seed=5, batch=BATCH, dtype="float32"):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, size)).astype(dtype) for size in layer.state_size]


def as_numpy(tensors):
    flat = tensors if isinstance(tensors, (list, tuple)) else [tensors]
    return [ops.convert_to_numpy(t) for t in flat]


def outputs_and_gradients(layer, x, initial_state=None, seed=9, compiled=False, known=True, **call):
    """Return the outputs of a call, and the gradients of a random linear function of them.

    With ``compiled``, in a compiled function; with ``known=False``, in one that was built before
    the batch size and the number of steps were known (TensorFlow only: JAX always knows them).

    Returns ``(outputs, gradients)``: gradients is a dict with ``sequences``, ``state 0``, ...
    and the trainable weights by their names, in their order.
    """
    states = list(initial_state or [])
    x, states = ops.convert_to_tensor(x), [ops.convert_to_tensor(s) for s in states]
    arrays = {k: ops.convert_to_tensor(v) for k, v in call.items() if isinstance(v, np.ndarray)}
    fixed = {k: v for k, v in call.items() if k not in arrays}
    if keras.backend.backend() != "tensorflow":
        results = _results_on_jax(layer, seed, fixed)
    elif compiled and not known:
        results = _compiled_for(
            layer,
            seed,
            tuple(fixed.items()),
            tf.TensorSpec([None, None, x.shape[2]], x.dtype),
            tuple(tf.TensorSpec([None, s.shape[1]], s.dtype) for s in states),
            tuple((k, tf.TensorSpec([None] * len(a.shape), a.dtype)) for k, a in arrays.items()),
            layer.route(training=fixed.get("training", False)).name,
        )
    elif compiled:
        results = tf.function(_results(layer, seed, fixed), autograph=False)
    else:
        results = _results(layer, seed, fixed)
    outputs, gradients = results(x, states, arrays)
    names = ["sequences", *(f"state {i}" for i in range(len(states)))]
    names += [v.path.split("/", 1)[1] for v in layer.trainable_variables]
    return as_numpy(outputs), dict(zip(names, as_numpy(gradients), strict=True))


def _loss(outputs, seed):
    """Return a random linear function of the outputs, and the outputs as a list."""
    flat = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    weighted = [
        ops.sum(ops.cast(y, "float64") * loss_weights(seed, place, ops.shape(y)))
        for place, y in enumerate(flat)
    ]
    return sum(weighted[1:], weighted[0]), list(flat)


def loss_weights(seed, place, sizes):
    """Return the weights of the output at ``place`` in the loss: the same for sizes not known yet.

    They are slices of a larger array.
    """
    enough = _random_weights(seed, place, len(sizes))
    if not all(isinstance(size, int) for size in sizes):
        enough = ops.convert_to_tensor(enough)
    return enough[tuple(slice(size) for size in sizes)]


@functools.cache
def _random_weights(seed, place, dimensions):
    """Return weights for an output of up to 64 rows, steps and units."""
    return np.random.default_rng([seed, place]).normal(size=(64,) * dimensions)


def _results(layer, seed, fixed):
    """Return the function of inputs, states and arrays whose results are compared."""

    def results(x, states, arrays):
        with tf.GradientTape() as tape:
            tape.watch([x, *states])
            outputs = layer(x, initial_state=list(states) or None, **fixed, **arrays)
            loss, outputs = _loss(outputs, seed)
        sources = [x, *states, *(v.value for v in layer.trainable_variables)]
        return outputs, tape.gradient(
            loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    return results


@functools.cache
def _compiled_for(layer, seed, fixed, x, states, arrays, route):
    """Return `_results`, compiled once for all sizes; ``route`` only tells functions apart."""
    results = _results(layer, seed, dict(fixed))
    return tf.function(results, input_signature=(x, list(states), dict(arrays)), autograph=False)


def _results_on_jax(layer, seed, fixed):
    import jax

    def loss_at(trainable, x, states, arrays):
        outputs, _ = layer.stateless_call(
            trainable, others, x, initial_state=list(states) or None, **fixed, **arrays
        )
        return _loss(outputs, seed)

    def results(x, states, arrays):
        trainable = [v.value for v in layer.trainable_variables]
        gradient = jax.jit(jax.grad(loss_at, argnums=(0, 1, 2), has_aux=True))
        by_part, outputs = gradient(trainable, x, states, arrays)
        return outputs, [by_part[1], *by_part[2], *by_part[0]]

    others = [v.value for v in layer.non_trainable_variables]
    return results


def assert_same(ours, theirs, atol=2e-5, rtol=1e-4):
    """Assert that two results of `outputs_and_gradients` are equal up to rounding."""
    for place, (a, b) in enumerate(zip(ours[0], theirs[0], strict=True)):
        np.testing.assert_allclose(a, b, atol=atol, rtol=rtol, err_msg=f"output {place}")
    for (name, a), b in zip(ours[1].items(), theirs[1].values(), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=rtol, err_msg=f"gradient of {name}")
