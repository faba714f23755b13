"""A model that cannot be deserialized: of another version, or a defect of this one."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.loading import load_model
from pipelines.engine.runs.provenance import git_commit, package_versions
from pipelines.engine.runs.run import Run


class RemovedLayer(keras.layers.Dense):
    """Not registered, so that Keras does not find it."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "runs" / "sentiment" / "20260101-default-ab12")
    run.update(status="finished", git_commit=git_commit(), versions=package_versions())
    return run


def save(run: Run, layer: keras.layers.Layer) -> None:
    keras.Sequential([keras.Input((3,)), layer]).save(run.folder / "model.keras")


@pytest.mark.parametrize(
    "changes",
    [{"git_commit": "0123456789abcdef"}, {"versions": {"unfold": "0.0.1"}}],
)
def test_a_class_missing_in_this_version_is_one_line(run, changes):
    save(run, RemovedLayer(2))
    run.update(**changes)
    with pytest.raises(UserError) as caught:
        load_model(run)
    message = str(caught.value)
    assert run.id in message
    assert "another version" in message
    assert "TypeError" in message
    assert "unfold train sentiment" in message
    assert "\n" not in message


def test_an_error_with_the_same_version_keeps_its_traceback(run):
    save(run, RemovedLayer(2))
    with pytest.raises(TypeError, match="deserialized"):
        load_model(run)


def test_a_model_of_another_version_that_can_be_read_is_used(run):
    save(run, keras.layers.Dense(2))
    run.update(git_commit="0123456789abcdef")
    assert load_model(run).output_shape == (None, 2)


def test_a_run_without_a_model_says_how_to_continue_it(run):
    with pytest.raises(UserError, match=f"unfold train sentiment --resume {run.id}"):
        load_model(run)


def test_versions_are_recorded_under_the_keys_of_version_0_1():
    assert {"python", "unfold", "keras", "numpy", "mlflow"} <= package_versions().keys()
