"""Helpers for the tests of the layers: random layers, and gradients on either backend."""

import keras
import numpy as np
from keras import ops

import layers

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

    def weights_for(y, rng):
        if not compiled:
            return rng.normal(size=tuple(y.shape))
        # Slices of a larger array, because the sizes are not known yet.
        enough = ops.convert_to_tensor(rng.normal(size=(32,) * len(y.shape)))
        return enough[tuple(slice(size) for size in ops.shape(y))]

    def loss_of(outputs):
        flat = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        rng = np.random.default_rng(seed)
        weighted = [ops.sum(ops.cast(y, "float64") * weights_for(y, rng)) for y in flat]
        return sum(weighted[1:], weighted[0]), list(flat)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        variables = [v.value for v in layer.trainable_variables]
        fixed = {k: v for k, v in call.items() if not isinstance(v, np.ndarray)}
        arrays = {k: tf.constant(v) for k, v in call.items() if isinstance(v, np.ndarray)}

        def results(x, states, arrays):
            with tf.GradientTape() as tape:
                tape.watch([x, *states])
                outputs = layer(x, initial_state=states or None, **fixed, **arrays)
                loss, outputs = loss_of(outputs)
            sources = [x, *states, *variables]
            zero = tf.UnconnectedGradients.ZERO
            return outputs, tape.gradient(loss, sources, unconnected_gradients=zero)

        if compiled:
            given = (x, states, arrays)
            specs = tf.nest.map_structure(
                lambda t: tf.TensorSpec(
                    t.shape if known else [None] * min(2, len(t.shape)) + t.shape[2:], t.dtype
                ),
                given,
            )
            if not known:  # the number of features is
                specs = (
                    specs[0],
                    [tf.TensorSpec([None, s.shape[1]], s.dtype) for s in states],
                    specs[2],
                )
            results = tf.function(results, input_signature=specs)
        outputs, gradients = results(x, states, arrays)
    else:
        import jax

        fixed = [v.value for v in layer.non_trainable_variables]

        def loss_at(trainable, x, states):
            outputs, _ = layer.stateless_call(
                trainable, fixed, x, initial_state=states or None, **call
            )
            return loss_of(outputs)

        trainable = [v.value for v in layer.trainable_variables]
        gradient = jax.jit(jax.grad(loss_at, argnums=(0, 1, 2), has_aux=True))
        by_part, outputs = gradient(trainable, x, states)
        gradients = [by_part[1], *by_part[2], *by_part[0]]
    names = ["sequences", *(f"state {i}" for i in range(len(states)))]
    names += [v.path.split("/", 1)[1] for v in layer.trainable_variables]
    return as_numpy(outputs), dict(zip(names, as_numpy(gradients), strict=True))


def assert_same(ours, theirs, atol=2e-5, rtol=1e-4):
    """Assert that two results of `outputs_and_gradients` are equal up to rounding."""
    for place, (a, b) in enumerate(zip(ours[0], theirs[0], strict=True)):
        np.testing.assert_allclose(a, b, atol=atol, rtol=rtol, err_msg=f"output {place}")
    for (name, a), b in zip(ours[1].items(), theirs[1].values(), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=rtol, err_msg=f"gradient of {name}")
