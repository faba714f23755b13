"""Each pipeline's model trains on JAX, and TensorFlow computes the same with its weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import ROOT
from tests.support.commands import JAX
from tests.support.one_batch import EPOCHS, prepare
from tests.support.trained import TrainOnce

pytestmark = pytest.mark.jax

#: Overrides of each pipeline's small config: all kinds of decoders are among them.
CASES = {
    "sentiment": ("sentiment", ["model.token_dropout=0"]),
    "sentiment-weighted": (
        "sentiment",
        ["model.token_dropout=0", "train.class_weights={positive: 3}"],
    ),
    "sentiment-several-labels": (
        "sentiment",
        ["model.token_dropout=0", "data.multi_label=true"],
    ),
    "captioning": ("captioning", ["model.encoder.fine_tune=true"]),
    "captioning-without-attention": ("captioning", ["model.decoder.attention=none"]),
    "translation": ("translation", []),
    "translation-without-attention": (
        "translation",
        ["model.level=subword", "text.vocabulary=400", "model.decoder.attention=none"],
    ),
    "forecasting": ("forecasting", []),
    "forecasting-step-by-step": (
        "forecasting",
        ["model.decode=autoregressive", "data.ratios={}", "model.head=quantiles"],
    ),
    "generation": ("generation", ["model.dropout=0"]),
}


@pytest.fixture(scope="module")
def cases(trained_once: TrainOnce) -> dict[str, tuple[str, str, list[str]]]:
    return {
        name: (task, str(trained_once(task).folder / "config.yaml"), overrides)
        for name, (task, overrides) in CASES.items()
    }


@pytest.fixture(scope="module")
def on_jax(cases, tmp_path_factory) -> tuple[Path, dict[str, list[float]]]:
    """A folder with the trained models, and their losses after each epoch."""
    folder = tmp_path_factory.mktemp("jax")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.one_batch", str(folder)],
        cwd=ROOT,
        env=os.environ | JAX,
        input=json.dumps([[name, *case] for name, case in cases.items()]),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["backend"] == "jax"
    return folder, told["losses"]


@pytest.mark.parametrize("name", CASES)
def test_tensorflow_computes_what_jax_learned(name, cases, on_jax):
    folder, losses = on_jax
    assert len(losses[name]) == EPOCHS
    assert min(losses[name][1:]) < losses[name][0]
    case = prepare(*cases[name])
    model = keras.saving.load_model(folder / f"{name}.keras", compile=False)
    model.compile(loss=case.task.objective(case.config, case.processor).loss)
    found = model.evaluate(case.feed.validation(), verbose=0)
    # The weights are those of the best epoch by the monitored score, which need not be the loss.
    assert min(abs(found / loss - 1) for loss in losses[name]) < 1e-3

    served = case.task.endpoints(case.config, case.processor, model)["serving_default"]
    answer = tf.function(
        served.function, input_signature=list(served.inputs.values()), autograph=False
    )
    request = case.task.request(case.config, case.splits.test[:1])
    answers = [answer(*(request[key] for key in served.inputs)) for _ in range(2)]
    for one, again in zip(*(tf.nest.flatten(found) for found in answers), strict=True):
        np.testing.assert_array_equal(one, again)
    attends = {"captioning": True, "translation": True, "captioning-without-attention": False}
    if name in attends:
        assert ("alignment" in answers[0]) == attends[name]
