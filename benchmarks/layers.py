"""Compare training steps and inference of one recurrent layer across libraries.

    make bench                      # all benchmarks
    python -m benchmarks.layers     # this one
    python -m benchmarks.layers --quick  # only training on full-length batches

One row per shape (batch, T, inputs, units), in milliseconds: the best of interleaved rounds, so
that a slow moment of the machine affects all alike. Contenders: ``keras.layers`` in a TensorFlow
graph and compiled as a whole by XLA; torch.nn and a ``jax.lax.scan`` under ``jax.jit`` if they
are installed; and the GEMM limit: only the six matrix products of a training step (two of
inference), each over all steps at once.

A training step is the forward pass and all gradients, with respect to the inputs, U, W and b.
"""

import argparse
import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

import layers
from benchmarks.measure import Table, best_of, report

SHAPES = [
    (32, 32, 32, 32),
    (64, 60, 64, 64),
    (64, 128, 128, 128),
    (128, 400, 64, 64),
    (32, 64, 256, 512),
]
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


def inputs_of(shape, ragged):
    """Return x, the gradient of the outputs, and lengths (uniform in 1…T) or None."""
    batch, time, inputs, units = shape
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, time, inputs)).astype("float32")
    upstream = rng.normal(size=(batch, time, units)).astype("float32")
    lengths = rng.integers(1, time + 1, size=batch).astype("int32") if ragged else None
    return x, upstream, lengths


def of_keras(module, cell, shape, lengths, train, xla=False, bidirectional=False):
    """Return a step function of ``layers`` or ``keras.layers``."""
    layer = getattr(module, cell)(shape[3], return_sequences=True)
    if bidirectional:
        layer = module.Bidirectional(layer, merge_mode="sum")
    layer.build((None, None, shape[2]))
    mask = None
    if lengths is not None:
        mask = tf.constant(np.arange(shape[1]) < lengths[:, None])
    variables = [v.value for v in layer.trainable_variables]

    @tf.function(jit_compile=xla)
    def training(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, mask=mask, training=True) * upstream)
        return tape.gradient(loss, [x, *variables])

    @tf.function(jit_compile=xla)
    def inference(x, upstream):
        return [layer(x, mask=mask, training=False)]

    step = training if train else inference

    def run(x, upstream):
        step(x, upstream)[-1].numpy()

    return run, tf.constant


def of_torch(cell, shape, lengths, train, bidirectional=False):
    import torch

    torch.set_num_threads(os.cpu_count())
    kind = {"SimpleRNN": "RNN"}.get(cell, cell)
    layer = getattr(torch.nn, kind)(
        shape[2], shape[3], batch_first=True, bidirectional=bidirectional
    )

    def forward(x):
        if lengths is None:
            return layer(x)[0]
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        return torch.nn.utils.rnn.pad_packed_sequence(
            layer(packed)[0], batch_first=True, total_length=shape[1]
        )[0]

    def training(x, upstream):
        layer.zero_grad(set_to_none=True)
        x = x.detach().requires_grad_(True)
        y = forward(x)
        upstream = torch.cat([upstream, upstream], -1) if bidirectional else upstream
        (y * upstream).sum().backward()

    def inference(x, upstream):
        with torch.inference_mode():
            forward(x)

    return (training if train else inference), torch.tensor


def of_jax(cell, shape, lengths, train):
    """Return a step of an LSTM in idiomatic JAX: a scan and its gradient."""
    import jax
    import jax.numpy as jnp

    _, time, inputs, units = shape
    rng = np.random.default_rng(1)
    weights = [
        jnp.asarray(rng.normal(size=s, scale=s[0] ** -0.5), jnp.float32)
        for s in [(inputs, 4 * units), (units, 4 * units), (1, 4 * units)]
    ]
    mask = None
    if lengths is not None:
        mask = jnp.asarray(np.arange(time)[:, None, None] < lengths[None, :, None])

    def forward(weights, x):
        U, W, b = weights

        def step(state, now):
            h, c = state
            i, f, g, o = jnp.split(now[0] @ U + h @ W + b, 4, axis=-1)
            new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
            if mask is not None:
                new_h, new_c = jnp.where(now[1], new_h, h), jnp.where(now[1], new_c, c)
            return (new_h, new_c), new_h

        zero = jnp.zeros((x.shape[0], units))
        xs = (x.swapaxes(0, 1),) if mask is None else (x.swapaxes(0, 1), mask)
        return jax.lax.scan(step, (zero, zero), xs)[1].swapaxes(0, 1)

    loss = jax.jit(jax.grad(lambda w, x, u: (forward(w, x) * u).sum(), argnums=(0, 1)))
    plain = jax.jit(forward)

    def run(x, upstream):
        result = loss(weights, x, upstream) if train else plain(weights, x)
        jax.block_until_ready(result)

    return run, jnp.asarray


def gemm_limit(cell, shape, train):
    """Return only the products: x·U, h·W and, in training, dz·Uᵀ, dz·Wᵀ, xᵀ·dz, hᵀ·dz."""
    batch, time, inputs, units = shape
    wide, rows = GATES[cell] * units, batch * time
    x, h, dz = (tf.random.normal((rows, n)) for n in (inputs, units, wide))
    U, W = tf.random.normal((inputs, wide)), tf.random.normal((units, wide))

    @tf.function
    def products(x, h, dz):
        forward = [x @ U, h @ W]
        if not train:
            return forward
        return [
            *forward,
            tf.matmul(dz, U, transpose_b=True),
            tf.matmul(dz, W, transpose_b=True),
            tf.matmul(x, dz, transpose_a=True),
            tf.matmul(h, dz, transpose_a=True),
        ]

    return (lambda *_: products(x, h, dz)[-1].numpy()), tf.constant


def installed(name):
    return importlib.util.find_spec(name) is not None


def contenders(cell, shape, lengths, train, bidirectional):
    """Return the contenders by name; libraries that are not installed are left out."""
    both = {"bidirectional": True} if bidirectional else {}
    made = {
        "unfold": of_keras(layers, cell, shape, lengths, train, **both),
        "keras graph": of_keras(keras.layers, cell, shape, lengths, train, **both),
        "keras XLA": of_keras(keras.layers, cell, shape, lengths, train, xla=True, **both),
    }
    if installed("torch"):
        made["torch"] = of_torch(cell, shape, lengths, train, **both)
    if installed("jax") and cell == "LSTM" and not bidirectional:
        made["jax scan"] = of_jax(cell, shape, lengths, train)
    if not bidirectional and lengths is None:
        made["GEMM limit"] = gemm_limit(cell, shape, train)
    return made


def measure(cell, train, ragged, bidirectional, rounds):
    what = "training step" if train else "inference"
    kind = f"bidirectional {cell}" if bidirectional else cell
    table = Table(f"{kind}, {what}, {'ragged' if ragged else 'full length'}, ms", SHAPES)
    for shape in SHAPES:
        x, upstream, lengths = inputs_of(shape, ragged)
        calls = {}
        for name, (step, convert) in contenders(cell, shape, lengths, train, bidirectional).items():
            given = convert(x), convert(upstream)
            calls[name] = lambda step=step, given=given: step(*given)
        table.add(shape, best_of(calls, rounds))
    keras_best = [min(r["keras graph"], r["keras XLA"]) for r in table.rows]
    table.note("keras.layers, its better mode", keras_best)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default="LSTM,GRU,SimpleRNN")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="training steps, full length only")
    options = parser.parse_args()
    cells = options.cells.split(",")
    if options.quick:
        tables = [measure(cell, True, False, False, options.rounds) for cell in cells]
        report("training_steps", tables)
        return
    tables = [
        measure(cell, train, ragged, False, options.rounds)
        for cell in cells
        for train in (True, False)
        for ragged in (False, True)
    ]
    if "LSTM" in cells:
        tables.append(measure("LSTM", True, True, True, options.rounds))
    report("layers", tables)


if __name__ == "__main__":
    main()
