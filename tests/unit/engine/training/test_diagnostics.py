"""The health of a training: against NumPy, and on cells that are made sick."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from layers import GRU, LSTM, SimpleRNN
from pipelines.engine.config.schema import TrainConfig
from pipelines.engine.training import diagnostics
from pipelines.engine.training.losses import next_token
from pipelines.engine.training.optimizers import make_optimizer

CELLS = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}
TIME = 12


def sick(cell: str = "rnn", *, scale: float) -> keras.Model:
    """A classifier whose W is ``scale`` times a rotation."""
    inputs = keras.Input((None, 3))
    layer = CELLS[cell](8, name="recurrent_1")
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    layer.cell.recurrent_kernel.assign(np.tile(scale * turn, len(layer.cell.gate_order)))
    return model


def batches(scale: float = 0.1) -> tf.data.Dataset:
    rng = np.random.default_rng(1)
    x = scale * rng.normal(size=(4, TIME, 3)).astype("float32")
    return tf.data.Dataset.from_tensors((x, rng.integers(0, 2, 4)))


def examined(model: keras.Model, data: tf.data.Dataset) -> diagnostics.DiagnosticReport:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return diagnostics.GradientDiagnostics(model, loss, data)()


def test_a_network_that_forgets_is_told_and_so_is_the_cure():
    found = examined(sick(scale=0.3), batches())
    assert found.metrics["health/decay/recurrent_1"] == pytest.approx(0.3, rel=0.05)
    assert found.metrics["health/rho/recurrent_1/W"] == pytest.approx(0.3, rel=1e-4)
    assert found.metrics["health/sigma/recurrent_1/W"] == pytest.approx(0.3, rel=1e-4)
    assert found.warnings["recurrent_1"].startswith("recurrent_1: gradients vanish: 8 steps back")
    assert "lstm" in found.warnings["recurrent_1"]


def test_a_network_that_explodes_is_told():
    found = examined(sick(scale=3.0), batches(scale=1e-6))
    assert found.metrics["health/decay/recurrent_1"] == pytest.approx(3.0, rel=0.05)
    assert "gradients explode" in found.warnings["recurrent_1"]
    assert "train.clip_norm" in found.warnings["recurrent_1"]


def test_a_network_that_is_well_gets_no_warning():
    found = examined(sick(scale=0.95), batches())
    assert not found.warnings
    table = found.table()
    assert [row[:2] for row in table.rows] == [["recurrent_1", k] for k in range(TIME)]


@pytest.mark.parametrize("cell", CELLS)
def test_saturated_gates_and_weights_are_counted_as_numpy_counts_them(cell):
    model = sick(cell, scale=1.0)
    layer = model.get_layer("recurrent_1")
    rng = np.random.default_rng(3)
    layer.set_weights([rng.normal(scale=2, size=w.shape) for w in layer.weights])
    data = batches(scale=1.0)
    found = examined(model, data).metrics
    traced = layer.trace(next(iter(data))[0])
    parts = [name.split("/")[-1] for name in found if "/saturated/" in name]
    gates = {"rnn": [], "gru": ["update_gate", "reset_gate"]}.get(
        cell, ["input_gate", "forget_gate", "output_gate"]
    )
    assert parts == [*gates, "hidden_state" if cell == "rnn" else "candidate"]
    for part in parts:
        value = ops.convert_to_numpy(traced[part])
        low = (value < 0.1) if part.endswith("gate") else (value < -0.9)
        share = np.mean(low | (value > 0.9))
        assert 0 < share < 1
        assert found[f"health/saturated/recurrent_1/{part}"] == pytest.approx(share)
    for gate in layer.cell.gate_order:
        label = "W" if cell == "rnn" else f"W_{gate}"
        W = ops.convert_to_numpy(getattr(layer, label))
        logged = "W_c" if label == "W_g" else label  # the metric's name is of earlier runs
        sigma = found[f"health/sigma/recurrent_1/{logged}"]
        assert sigma == pytest.approx(math.sqrt(np.linalg.eigvalsh(W.T @ W).max()), rel=1e-4)
        rho = max(abs(np.linalg.eigvals(W)))
        assert found[f"health/rho/recurrent_1/{logged}"] == pytest.approx(rho, rel=1e-4)


def test_of_a_loss_of_every_token_only_the_last_counts():
    """Else each step would be near a loss of its own."""
    ids = keras.Input((None,), dtype="int32")
    hidden = SimpleRNN(4, return_sequences=True, name="recurrent_1")(
        keras.layers.Embedding(9, 3)(ids), mask=ops.not_equal(ids, 0)
    )
    model = keras.Model(ids, keras.layers.Dense(9)(hidden))
    model.get_layer("recurrent_1").cell.recurrent_kernel.assign(np.zeros((4, 4)))
    rows = np.array([[3, 4, 5, 6], [7, 8, 0, 0]], "int32")
    data = tf.data.Dataset.from_tensors((rows, rows))
    norms = diagnostics.GradientDiagnostics(model, next_token(0.0).loss, data)().norms[
        "recurrent_1"
    ]
    assert norms[0] > 0
    np.testing.assert_array_equal(norms[1:], 0)


def test_the_longest_batch_that_is_not_too_long_is_looked_at():
    def batch(steps: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((2, steps, 3), "float32"), np.zeros(2, "int64")

    def looked_at(*lengths: int) -> int:
        signature = (tf.TensorSpec([2, None, 3]), tf.TensorSpec([2], tf.int64))
        data = tf.data.Dataset.from_generator(
            lambda: map(batch, lengths), output_signature=signature
        )
        return len(examined(sick(scale=0.9), data).norms["recurrent_1"])

    assert looked_at(5, 30, 400, 12) == 30
    assert looked_at(400, 200) == 200


def test_a_model_without_memory_has_nothing_to_show():
    inputs = keras.Input((None, 3))
    pooled = keras.layers.GlobalMaxPooling1D()(inputs)
    found = examined(keras.Model(inputs, keras.layers.Dense(2)(pooled)), batches())
    assert (found.metrics, found.table().rows) == ({}, [])


@pytest.mark.parametrize("kind", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
def test_an_optimizer_keeps_how_large_gradients_were(kind):
    settings = {"optimizer": kind, "clip_norm": 4.0}
    optimizer = make_optimizer(TrainConfig.model_validate(settings), steps_per_epoch=3)
    variables = [keras.Variable(np.zeros((2, 2))), keras.Variable(np.zeros(3))]
    optimizer.build(variables)
    norms = []
    for scale in (1.0, 2.0, 3.0):
        gradients = [scale * np.ones((2, 2), "float32"), scale * np.ones(3, "float32")]
        norms.append(math.sqrt(sum(float(np.sum(g**2)) for g in gradients)))
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients])
    found = optimizer.pop_metrics()
    assert found["health/gradient_norm"] == pytest.approx(np.mean(norms))
    assert found["health/clipped_share"] == pytest.approx(2 / 3)
    assert optimizer.pop_metrics() == {"health/gradient_norm": 0.0, "health/clipped_share": 0.0}
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)


def test_the_picture_has_a_panel_a_layer_and_a_line_an_epoch():
    rows = [
        [str(epoch), layer, str(k), f"{0.5**k:.4e}"]
        for epoch in (1, 2, 3)
        for layer in ("encoder_1", "decoder_1")
        for k in range(5)
    ]
    panels = diagnostics.plot_gradient_flow(rows, "a run").axes
    assert [ax.get_title() for ax in panels] == ["encoder_1", "decoder_1"]
    assert [len(ax.lines) for ax in panels] == [3, 3]
    np.testing.assert_allclose(panels[0].lines[0].get_ydata(), 0.5 ** np.arange(5))
