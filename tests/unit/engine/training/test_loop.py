"""The training loop: the chapter's rule, the learning rate, the best epoch, and resuming."""

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from pipelines.engine.config.schema import TrainConfig
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import TrainingError, UserError
from pipelines.engine.training import checkpoints, loop
from pipelines.engine.training.loop import Objective, State
from pipelines.engine.training.optimizers import Schedule
from pipelines.sentiment.config import SentimentModelConfig
from pipelines.sentiment.model import build
from tests.support.matrix import thorough_after


@dataclass
class Feed:
    """The same few batches each epoch, in an order of the epoch's own."""

    inputs: np.ndarray
    targets: np.ndarray
    batch_size: int = 4
    validation_targets: list[np.ndarray] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    @property
    def tokens(self) -> int:
        return self.inputs.size

    padded_tokens = tokens

    def train(self, epoch: int) -> tf.data.Dataset:
        order = np.random.default_rng(epoch).permutation(len(self.inputs))
        return self._batches(self.inputs[order], self.targets[order])

    def validation(self) -> tf.data.Dataset:
        return self._batches(self.inputs, self.targets)

    def _batches(self, inputs: np.ndarray, targets: np.ndarray) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(self.batch_size)


REGRESSION = Objective(
    loss=keras.losses.MeanSquaredError(),
    metrics=list,
    monitor="val_loss",
    higher_is_better=False,
)
CLASSES = Objective(
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    monitor="val_accuracy",
    higher_is_better=True,
)


def linear(weights=(0.5, -1.0)) -> keras.Model:
    """y = x · θ, so that every gradient is easily written down."""
    inputs = keras.Input((len(weights),))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    model.set_weights([np.array(weights, np.float32)[:, None]])
    return model


def line_feed(rows: int = 8, batch_size: int = 4) -> Feed:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows, 2)).astype(np.float32)
    targets = (inputs @ np.array([[2.0], [3.0]], np.float32)).astype(np.float32)
    return Feed(inputs, targets, batch_size)


def classifier(cell: str = "lstm", **changes) -> keras.Model:
    keras.utils.set_random_seed(1)
    config = SentimentModelConfig(cell=cell, units=[4], embedding=4, **changes)
    return build(config, vocabulary=10, classes=2, seed=1)


def text_feed() -> Feed:
    rng = np.random.default_rng(0)
    ids = rng.integers(2, 10, (12, 5)).astype(np.int32)
    return Feed(ids, (ids[:, 0] > 5).astype(np.int32))


def fit(model, feed, objective, folder: Path, on_epoch=lambda state: None, **config) -> State:
    return loop.fit(
        model, feed, objective, TrainConfig(**{"patience": None} | config),
        folder=folder, console=Console(), on_epoch=on_epoch,
    )  # fmt: skip


# The learning rate


@given(
    peak=st.floats(1e-6, 10),
    shape=st.sampled_from(["constant", "linear", "cosine"]),
    warmup=st.integers(0, 20),
    total=st.integers(1, 60),
    step=st.integers(0, 80),
)
def test_schedule_follows_its_formula(peak, shape, warmup, total, step):
    done = min(max((step - warmup) / max(1, total - warmup), 0), 1)
    fall = {
        "constant": 1.0,
        "linear": 1 - 0.95 * done,
        "cosine": 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2,
    }[shape]
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    got = float(Schedule(peak, shape, warmup, total)(step))
    assert got == pytest.approx(peak * rise * fall, rel=1e-4)


def test_schedule_at_the_points_one_thinks_of():
    schedule = Schedule(0.1, "cosine", warmup=10, total=110)
    rates = [float(schedule(step)) for step in (0, 9, 10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [0.01, 0.1, 0.1, 0.0525, 0.005, 0.005], rtol=1e-5)


def test_schedule_is_saved_with_its_settings():
    schedule = Schedule(0.1, "linear", 3, 30)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()
    assert float(again(7)) == float(schedule(7))


# Optimizers


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("weight_decay", thorough_after(1, [0.01, 0.0]))
def test_every_optimizer_trains(optimizer, weight_decay, tmp_path):
    model, feed = linear(), line_feed()
    state = fit(
        model, feed, REGRESSION, tmp_path, optimizer=optimizer, weight_decay=weight_decay,
        learning_rate=0.2, clip_norm=None, epochs=4,
    )  # fmt: skip
    assert state.history[-1]["val_loss"] < 0.8 * state.history[0]["val_loss"]


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
def test_sgd_is_the_rule_of_the_chapter(clip, tmp_path):
    """θ ← θ − η ∂L/∂θ, with the whole gradient scaled down to the norm ``clip``."""
    feed, rate = line_feed(rows=4), 0.1
    theta = np.array([[0.5], [-1.0]])
    for epoch in range(3):
        ((x, y),) = [(np.float64(x), np.float64(y)) for x, y in feed.train(epoch)]
        gradient = 2 * x.T @ (x @ theta - y) / len(x)
        norm = np.sqrt((gradient**2).sum())
        if clip is not None and norm > clip:
            gradient *= clip / norm
        theta = theta - rate * gradient
    model = linear()
    fit(
        model, feed, REGRESSION, tmp_path, optimizer="sgd", learning_rate=rate,
        schedule="constant", clip_norm=clip, epochs=3,
    )  # fmt: skip
    np.testing.assert_allclose(model.get_weights()[0], theta, rtol=1e-5)


def test_weight_decay_shrinks_weights(tmp_path):
    """With no gradient at all, one step of AdamW is θ ← θ − η λ θ."""
    model, feed = linear((3.0, -2.0)), line_feed(rows=4)
    feed = Feed(np.zeros_like(feed.inputs), np.zeros_like(feed.targets))
    fit(
        model, feed, REGRESSION, tmp_path, optimizer="adamw", learning_rate=0.1,
        weight_decay=0.5, schedule="constant", epochs=1,
    )  # fmt: skip
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [2.85, -1.9], rtol=1e-5)


def test_learning_rate_goes_down_over_the_whole_run(tmp_path):
    state = fit(
        linear(), line_feed(), REGRESSION, tmp_path, learning_rate=0.1, schedule="linear", epochs=5
    )
    rates = [record["learning_rate"] for record in state.history]
    # Two steps in an epoch; the rate of the record is that of the next step.
    np.testing.assert_allclose(rates, [0.1 * (1 - 0.19 * e) for e in range(1, 6)], rtol=1e-4)


# What is recorded, and when training stops


def test_history_tells_of_each_epoch(tmp_path):
    seen = []
    state = fit(
        classifier("feedforward"), text_feed(), CLASSES, tmp_path, epochs=2,
        on_epoch=lambda state: seen.append((state.epoch, len(state.history))),
    )  # fmt: skip
    assert seen == [(1, 1), (2, 2)]
    assert state.epoch == 2
    for record in state.history:
        assert set(record) == {
            "loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds",
            "tokens_per_second", "padding_share", "learning_rate",
            "health/gradient_norm", "health/clipped_share",
        }  # fmt: skip
        assert record["padding_share"] == 0.0
        assert record["tokens_per_second"] == pytest.approx(60 / record["epoch_seconds"])
        assert all(isinstance(value, float) for value in record.values())


def diverging() -> dict:
    """A rate so large that the first epoch is the best one."""
    return {"optimizer": "sgd", "schedule": "constant", "learning_rate": 1.5, "clip_norm": None}


def test_training_stops_when_it_no_longer_helps(tmp_path):
    feed = line_feed()
    state = fit(linear(), feed, REGRESSION, tmp_path, epochs=9, patience=2, **diverging())
    losses = [record["val_loss"] for record in state.history]
    assert losses == sorted(losses)
    assert (state.epoch, state.best_epoch, state.waited) == (3, 1, 2)
    # A run that has stopped stays stopped.
    again = linear()
    assert fit(again, feed, REGRESSION, tmp_path, epochs=9, patience=2, **diverging()) == state


def test_model_is_left_with_the_weights_of_its_best_epoch(tmp_path):
    feed, one, three = line_feed(), linear(), linear()
    fit(one, feed, REGRESSION, tmp_path / "one", epochs=1, **diverging())
    state = fit(three, feed, REGRESSION, tmp_path / "three", epochs=3, **diverging())
    assert (state.epoch, state.best_epoch) == (3, 1)
    np.testing.assert_array_equal(three.get_weights()[0], one.get_weights()[0])


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("objective", [REGRESSION, CLASSES], ids=["lower", "higher"])
def test_as_good_as_the_best_is_not_better(objective, tmp_path):
    model = linear() if objective is REGRESSION else classifier("feedforward")
    feed = line_feed() if objective is REGRESSION else text_feed()
    model.trainable = False
    state = fit(model, feed, objective, tmp_path, epochs=9, patience=3)
    assert (state.epoch, state.best_epoch, state.waited) == (4, 1, 3)


@pytest.mark.parametrize(("clip", "advice"), [(None, "set train.clip_norm"), (9.0, "(now 9)")])
def test_loss_that_is_no_number_names_the_keys(clip, advice, tmp_path):
    feed = line_feed()
    feed.targets[0] = np.nan
    with pytest.raises(TrainingError) as caught:
        fit(linear(), feed, REGRESSION, tmp_path, learning_rate=0.25, clip_norm=clip)
    message = str(caught.value)
    assert message.startswith("the loss is nan after step ")
    assert "train.learning_rate (now 0.25)" in message
    assert advice in message
    assert not (tmp_path / "checkpoint.npz").exists()


def test_loss_that_explodes_within_an_epoch(tmp_path):
    with pytest.raises(TrainingError, match=r"^the loss is (inf|nan) after step \d+: the gradient"):
        fit(
            linear(), line_feed(rows=400), REGRESSION, tmp_path,
            **diverging() | {"learning_rate": 9.0},
        )  # fmt: skip


def test_loss_that_explodes_at_the_end_of_an_epoch(tmp_path):
    message = r"^val_loss is inf after epoch 1; lower train.learning_rate \(now 1e\+12\)"
    with pytest.raises(TrainingError, match=message):
        fit(linear(), line_feed(), REGRESSION, tmp_path, **diverging() | {"learning_rate": 1e12})
    assert not (tmp_path / "checkpoint.npz").exists()


# Resuming


class StoppedError(Exception):
    """What a test raises in place of a power cut."""


@pytest.mark.parametrize(
    ("cell", "optimizer", "stop"),
    thorough_after(1, [("rnn", "adam", 2), ("lstm", "momentum", 3)]),
)
def test_stopped_and_continued_equals_uninterrupted(cell, optimizer, stop, tmp_path):
    settings = {
        "optimizer": optimizer, "epochs": stop + 1, "learning_rate": 0.05, "warmup_steps": 3,
    }  # fmt: skip
    dropout = {
        "token_dropout": 0.3, "embedding_dropout": 0.3, "dropout": 0.3, "initial": "random",
        "bidirectional": cell == "lstm",
    }  # fmt: skip
    whole = classifier(cell, **dropout)
    expected = fit(whole, text_feed(), CLASSES, tmp_path / "whole", **settings)

    def power_cut(state: State) -> None:
        if state.epoch == stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(
            classifier(cell, **dropout),
            text_feed(),
            CLASSES,
            tmp_path / "cut",
            power_cut,
            **settings,
        )
    # Another process starts from other random weights and streams.
    keras.utils.set_random_seed(99)
    fresh = build(
        SentimentModelConfig(cell=cell, units=[4], embedding=4, **dropout),
        vocabulary=10, classes=2, seed=77,
    )  # fmt: skip
    state = fit(fresh, text_feed(), CLASSES, tmp_path / "cut", **settings)

    def measured(state: State) -> list[dict]:
        return [
            {k: v for k, v in r.items() if "second" not in k} for r in state.history
        ]  # all but the clock

    assert measured(state) == measured(expected)
    assert (state.best, state.best_epoch) == (expected.best, expected.best_epoch)
    for a, b in zip(fresh.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with (
        np.load(tmp_path / "cut/checkpoint.npz") as a,
        np.load(tmp_path / "whole/checkpoint.npz") as b,
    ):
        assert a.files == b.files
        for name in a.files:
            if name != "meta":
                np.testing.assert_array_equal(a[name], b[name])


def test_finished_training_only_loads_its_best_weights(tmp_path):
    feed, model = line_feed(), linear()
    state = fit(model, feed, REGRESSION, tmp_path, epochs=2)
    other = linear((9.0, 9.0))
    seen: list[State] = []
    assert fit(other, feed, REGRESSION, tmp_path, on_epoch=seen.append, epochs=2) == state
    assert seen == []
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


def test_checkpoint_of_another_model_is_refused(tmp_path):
    fit(linear(), line_feed(), REGRESSION, tmp_path, epochs=1)
    other = linear((1.0, 2.0, 3.0))
    before = other.get_weights()[0]
    feed = Feed(np.zeros((4, 3), np.float32), np.zeros((4, 1), np.float32))
    with pytest.raises(UserError, match=r"checkpoint.npz: belongs to another model"):
        fit(other, feed, REGRESSION, tmp_path, epochs=2)
    np.testing.assert_array_equal(other.get_weights()[0], before)


# Variables on disk


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "uint32", "bool"])
def test_variables_come_back_to_the_bit(dtype, tmp_path):
    values = ops.cast(np.random.default_rng(0).normal(size=(3, 4)) * 100, dtype)
    variable = keras.Variable(values, dtype=dtype, trainable=False, name="x")
    scalar = keras.Variable(7, dtype="int32", trainable=False, name="count")
    path = tmp_path / "v.npz"
    meta = {"epoch": 3, "best": None, "history": [{"loss": 0.1}]}
    checkpoints.save_variables(path, [variable, scalar], meta)
    before = np.asarray(ops.convert_to_numpy(variable.value)).copy()
    variable.assign(ops.zeros_like(variable.value))
    scalar.assign(0)
    values, found = checkpoints.read_variables(path)
    checkpoints.assign([variable, scalar], values, path.name)
    assert found == meta
    after = np.asarray(ops.convert_to_numpy(variable.value))
    assert after.dtype == before.dtype
    assert after.tobytes() == before.tobytes()
    assert int(scalar.value) == 7


def test_variables_that_do_not_fit_are_left_alone(tmp_path):
    path = tmp_path / "v.npz"
    ones, zeros = (
        [keras.Variable(np.full(shape, v, np.float32)) for shape in ((2,), (3, 1))] for v in (1, 0)
    )
    checkpoints.save_variables(path, ones, {})
    for wrong in (zeros[:1], zeros[::-1], [*zeros, zeros[0]]):
        with pytest.raises(UserError, match="belongs to another model"):
            checkpoints.assign(wrong, checkpoints.read_variables(path)[0], path.name)
    assert all((ops.convert_to_numpy(v) == 0).all() for v in zeros)


FOUR_EPOCHS = {"epochs": 4, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def whole_and_cut(tmp_path_factory):
    """A whole run, its model, and the folder of one that was cut off after its last epoch."""
    folder, whole = tmp_path_factory.mktemp("runs"), linear()
    expected = fit(whole, line_feed(), REGRESSION, folder / "whole", **FOUR_EPOCHS)

    def power_cut(state: State) -> None:
        if state.epoch == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(linear(), line_feed(), REGRESSION, folder / "cut", power_cut, **FOUR_EPOCHS)
    return expected, whole, folder / "cut"


@pytest.mark.parametrize("damage", ["empty", "cut short", "a bit", "text"])
def test_damaged_checkpoint_costs_an_epoch(damage, whole_and_cut, tmp_path, capfd):
    """The one before it is taken, and the end is the same to the bit."""
    expected, whole, cut = whole_and_cut
    folder = shutil.copytree(cut, tmp_path / "cut")
    path = folder / "checkpoint.npz"
    raw = bytearray(path.read_bytes())
    if damage == "a bit":
        raw[len(raw) // 2] ^= 1
    path.write_bytes({"empty": b"", "cut short": raw[:-100], "text": b"hello"}.get(damage, raw))
    again = linear()
    state = fit(again, line_feed(), REGRESSION, folder, **FOUR_EPOCHS)
    assert "checkpoint.npz is damaged" in (said := capfd.readouterr().err)
    assert "going back to epoch 2" in said
    assert [r["val_loss"] for r in state.history] == [r["val_loss"] for r in expected.history]
    for a, b in zip(again.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_checkpoint_does_not_replace_the_one_before(tmp_path):
    warned: list[str] = []
    variables = [keras.Variable(np.zeros(3, np.float32))]
    saved = checkpoints.Checkpoints(tmp_path, warned.append)
    for epoch in (1, 2):
        saved.save_best(epoch, variables)
        saved.save(variables, {"epoch": epoch, "best_epoch": epoch})
    (tmp_path / "checkpoint.npz").write_bytes(b"damaged")
    saved = checkpoints.Checkpoints(tmp_path, warned.append)
    assert saved.load_latest()[1]["epoch"] == 1
    saved.save_best(2, variables)
    saved.save(variables, {"epoch": 2, "best_epoch": 2})
    (tmp_path / "checkpoint.npz").write_bytes(b"damaged again")
    assert checkpoints.Checkpoints(tmp_path, warned.append).load_latest()[1]["epoch"] == 1
    assert len(warned) == 2


@pytest.mark.parametrize("moved", [0, 1])
def test_a_checkpoint_that_was_written_whole_is_found_wherever_it_is(moved, tmp_path):
    """Killed between writing it and giving it its name, before or after the last one is moved."""
    variables = [keras.Variable(np.zeros(3, np.float32))]
    saved = checkpoints.Checkpoints(tmp_path, pytest.fail)
    for epoch in (1, 2):
        saved.save_best(epoch, variables)
        saved.save(variables, {"epoch": epoch, "best_epoch": epoch})
    saved.save_best(3, variables)
    last = tmp_path / "checkpoint.npz"
    checkpoints.save_variables(
        tmp_path / "checkpoint-next.npz", variables, {"epoch": 3, "best_epoch": 3}
    )
    if moved:
        last.replace(tmp_path / "checkpoint-before.npz")
    assert checkpoints.Checkpoints(tmp_path, pytest.fail).load_latest()[1]["epoch"] == 3
    last.write_bytes(b"damaged")
    assert checkpoints.Checkpoints(tmp_path, lambda text: None).load_latest()[1]["epoch"] == 2


def test_without_any_good_checkpoint_training_starts_anew(tmp_path, capfd):
    fit(linear(), line_feed(), REGRESSION, tmp_path, epochs=2)
    first = linear()
    expected = fit(first, line_feed(), REGRESSION, tmp_path / "other", epochs=3)
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"PK")
    model = linear()
    state = fit(model, line_feed(), REGRESSION, tmp_path, epochs=3)
    assert "training starts anew" in capfd.readouterr().err
    assert state.epoch == 3
    assert [r["val_loss"] for r in state.history] == [r["val_loss"] for r in expected.history]
    np.testing.assert_array_equal(model.get_weights()[0], first.get_weights()[0])


def test_weights_are_kept_for_both_checkpoints_and_no_longer(tmp_path):
    fit(linear(), line_feed(), REGRESSION, tmp_path, epochs=5, learning_rate=0.05)
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == [
        "best-4.npz", "best-5.npz", "checkpoint-before.npz", "checkpoint.npz",
    ]  # fmt: skip


def test_checkpoint_is_plain_arrays_and_json(tmp_path):
    fit(linear(), line_feed(), REGRESSION, tmp_path, epochs=1)
    with np.load(tmp_path / "checkpoint.npz", allow_pickle=False) as saved:
        head = json.loads(bytes(saved["meta"]))
        assert head["meta"]["epoch"] == 1
        assert len(head["paths"]) == len(saved.files) - 1
