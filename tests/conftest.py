"""Settings and fixtures of all tests: no time limits, fixed examples, a folder for each test."""

import gc
import os
import sys

# Before anything imports TensorFlow: its start-up messages are no test results.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Before anything compiles: tests want compilation to be quick rather than its result.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
# Nothing of a test goes to the store of whoever runs it.
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("MLFLOW_REGISTRY_URI", None)
# Messages word commands for `unfold`, also where the tests are started by make.
os.environ.pop("UNFOLD_DIALECT", None)

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import ROOT, kept
from tests.support.browser import Browser, chromium, executable
from tests.support.trained import TrainOnce, train_once

settings.register_profile("unfold", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("unfold")


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """First weights and all other draws of a test are the same each time, in whatever order."""
    import keras  # not before the tests of the layers have set their backend up
    import tensorflow as tf

    with monkeypatch.context() as patched:
        # Nothing draws from TensorFlow's own generator, and a new seed of it would empty the cache
        # of kernels: all graphs would be prepared anew.
        patched.setattr(tf.random, "set_seed", lambda seed: None)
        keras.utils.set_random_seed(1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs, exports and the MLflow store of a test are its own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("UNFOLD_HOME", str(folder))
    # MLflow sets these when it is told a store; thus they are unset again after the test.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield folder
    # Neither does the next test ask the store of this one: MLflow would remember it.
    if (mlflow := sys.modules.get("mlflow")) is not None:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)


def pytest_configure(config: pytest.Config) -> None:
    """Choose where the session keeps its trained runs."""
    kept.choose()


def pytest_collection_finish() -> None:
    """Collect garbage less often: a traced graph is many objects, and almost all of them stay."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and those that open a browser."""
    for item in items:
        kind = item.path.relative_to(ROOT / "tests").parts[0]
        if kind in ("e2e", "faults"):
            item.add_marker(kind)
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def trained_once() -> TrainOnce:
    """``trained_once(task)``: one small trained run of a pipeline, shared by all sessions."""
    return train_once


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real browser without a window."""
    if executable() is None:
        pytest.skip("no Chromium on this machine: install Debian's package chromium")
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started
