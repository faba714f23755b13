"""The cuDNN route. On a GPU the kernel itself runs; elsewhere a stand-in, written from its
documentation, gets exactly the arguments that the kernel would get."""

import importlib

import keras
import numpy as np
import pytest

from tests.support.comparing import (
    UNITS,
    assert_same,
    data,
    make,
    outputs_and_gradients,
    random_states,
)
from tests.support.matrix import thorough_after

TENSORFLOW = keras.backend.backend() == "tensorflow"
cudnn = importlib.import_module(f"layers.cudnn_{keras.backend.backend()}")
ON_GPU = cudnn.refusal() is None


def tensorflow_kernel(
    input,
    input_h,
    input_c,
    params,
    sequence_lengths,
    rnn_mode,
    time_major,
    is_training,
):
    """cudnnRNNForward as NVIDIA documents it, gate by gate.

    The parameters are the input matrices of all gates [units, inputs], the recurrent ones
    [units, units], the input biases and the recurrent biases; LSTM gates are i, f, g, o and GRU
    gates r, z, h. Outputs behind a row's length are zero, its last state is that of its length.
    """
    import tensorflow as tf

    assert time_major is False
    assert is_training is True
    gates = {"lstm": 4, "gru": 3}[rnn_mode]
    inputs, units, time = input.shape[2], input_h.shape[2], input.shape[1]
    sizes = [units * inputs] * gates + [units * units] * gates + [units] * 2 * gates
    parts = tf.split(params, sizes)
    matrices = [tf.reshape(p, [units, -1]) for p in parts[: 2 * gates]]
    U, W = matrices[:gates], matrices[gates:]
    b, b_recurrent = parts[2 * gates : 3 * gates], parts[3 * gates :]
    h, c, outputs = input_h[:, 0], input_c[:, 0], []
    for t in range(time):
        x = input[:, t]
        of_x = [tf.matmul(x, u, transpose_b=True) + bias for u, bias in zip(U, b, strict=True)]
        of_h = [
            tf.matmul(h, w, transpose_b=True) + bias for w, bias in zip(W, b_recurrent, strict=True)
        ]
        if rnn_mode == "lstm":
            i, f, g, o = (p + q for p, q in zip(of_x, of_h, strict=True))
            new_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            new_h = tf.sigmoid(o) * tf.tanh(new_c)
        else:
            r, z = (tf.sigmoid(of_x[k] + of_h[k]) for k in (0, 1))
            new_h, new_c = (1 - z) * tf.tanh(of_x[2] + r * of_h[2]) + z * h, c
        real = (t < sequence_lengths)[:, None]
        h, c = tf.where(real, new_h, h), tf.where(real, new_c, c)
        outputs.append(tf.where(real, new_h, 0.0))
    return tf.stack(outputs, axis=1), h[:, None], c[:, None], None, None


def jax_kernel(
    x, h_0, c_0, weights, seq_lengths, input_size, hidden_size, num_layers, dropout, bidirectional
):
    """JAX's own reference of the kernel, on the same packed weights."""
    from jax.experimental import rnn

    unpacked = rnn.unpack_lstm_weights(weights, input_size, hidden_size, num_layers, bidirectional)
    return rnn.lstm_ref(
        x,
        h_0,
        c_0,
        *unpacked,
        seq_lengths,
        input_size,
        hidden_size,
        num_layers,
        dropout,
        bidirectional,
    )


@pytest.fixture(autouse=True)
def _kernel(monkeypatch):
    if ON_GPU:
        return
    monkeypatch.setattr(cudnn, "refusal", lambda: None)
    if TENSORFLOW:
        monkeypatch.setattr(cudnn.tf.raw_ops, "CudnnRNNV3", tensorflow_kernel)
    else:
        monkeypatch.setattr(cudnn.rnn, "lstm", jax_kernel)


def both(layer, x, states=None, **call):
    assert layer.route(training=True).name == "cudnn"
    return [
        outputs_and_gradients(layer, x, states, compiled=True, training=True, **call),
        outputs_and_gradients(layer, x, states, training=False, **call),
    ]


CASES = [
    *((kind, [5, 0, 1, 4], True) for kind in cudnn.CELLS),
    *((kind, None, False) for kind in cudnn.CELLS),
    *((kind, [5, 0, 1, 4], False) for kind in cudnn.CELLS),
    *((kind, None, True) for kind in cudnn.CELLS),
]


@pytest.mark.parametrize(
    ("kind", "lengths", "go_backwards"), thorough_after(2 * len(cudnn.CELLS), CASES)
)
def test_equals_the_portable_path(kind, lengths, go_backwards):
    layer = make(kind, return_sequences=True, return_state=True, go_backwards=go_backwards)
    call = {} if lengths is None else {"lengths": np.array(lengths, "int32")}
    states = random_states(layer, batch=4)
    assert_same(*both(layer, data(batch=4, time=5), states, **call), atol=1e-4)


# Fixed sizes: each is traced anew.
@pytest.mark.parametrize(
    ("batch", "time"), thorough_after(2, [(4, 6), (1, 5), (3, 1), (1, 1), (2, 4)])
)
def test_masks_with_gaps(batch, time):
    layer = make("LSTM", return_sequences=True, return_state=True)
    mask = np.random.default_rng(batch).random((batch, time)) < 0.5
    states = random_states(layer, batch=batch)
    assert_same(*both(layer, data(batch=batch, time=time), states, mask=mask), atol=1e-4)


@pytest.mark.parametrize(
    ("settings_", "reason"),
    [
        ({"use_cudnn": False}, "use_cudnn=False"),
        ({"truncate": 3}, "cuDNN does not truncate"),
        ({"dtype": "bfloat16", "recurrent_initializer": "zeros"}, "cuDNN does not compute in"),
    ],
)
def test_calls_that_cudnn_cannot_run_go_by_hand(settings_, reason):
    layer = make("LSTM", **settings_)
    route = layer.route(training=True)
    assert route.name == "by_hand"
    assert reason in route.reason
    assert make("SimpleRNN").route(training=True).name == "by_hand"
    assert make("GRU before").route(training=True).name == "by_hand"


@pytest.mark.skipif(not TENSORFLOW, reason="exports are written by TensorFlow")
def test_the_kernel_is_in_no_inference_graph(monkeypatch):
    import tensorflow as tf

    monkeypatch.undo()
    monkeypatch.setattr(cudnn, "refusal", lambda: None)
    layer = make("GRU", return_sequences=True)
    for training in (True, False):
        graph = tf.function(lambda x, t=training: layer(x, training=t))
        concrete = graph.get_concrete_function(tf.TensorSpec([None, None, 3]))
        ops_used = [op for op in concrete.graph.get_operations() if op.type == "CudnnRNNV3"]
        assert len(ops_used) == training
        if training:
            assert ops_used[0].get_attr("rnn_mode") == b"gru"
            assert ops_used[0].inputs[1].shape.as_list() == [None, 1, UNITS]
