"""Every private API that we use exists, is bounded in `pyproject.toml`, and is missed by name."""

from __future__ import annotations

import re
import tomllib

import numpy as np
import optuna
import pytest
import tensorflow as tf

from pipelines.engine.core import _compat
from pipelines.engine.core.errors import UserError
from tests.support import ROOT

APIS = {name: api for name, api in vars(_compat).items() if isinstance(api, _compat.PrivateAPI)}


def upper_bounds() -> dict[str, bool]:
    """For each dependency, whether its version is bounded below the next major or minor one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(r for extra in extras for r in extra)]
    return {re.split(r"[^\w-]", r)[0]: "<" in r.split(";")[0] for r in requirements}


@pytest.mark.parametrize("name", APIS)
def test_the_installed_release_has_it(name):
    pytest.importorskip(APIS[name].library)
    APIS[name].get()


@pytest.mark.parametrize("library", ["keras", "tensorflow", "jax", "optuna"])
def test_a_library_whose_private_apis_we_use_has_an_upper_bound(library):
    assert upper_bounds()[library]


def test_no_other_module_uses_private_modules():
    private = re.compile(r"keras\.src|jax\._src|tensorflow\.python")
    for path in (ROOT / "pipelines").rglob("*.py"):
        if path.name != "_compat.py":
            assert not private.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "api",
    [
        _compat.PrivateAPI("optuna", "optuna._dropped", "anything"),
        _compat.PrivateAPI("optuna", "optuna.trial", "Dropped"),
        _compat.PrivateAPI("optuna", "optuna.trial", "Trial.dropped"),
    ],
)
def test_a_missing_one_is_named_with_the_version(api):
    with pytest.raises(UserError) as raised:
        api.get()
    message = str(raised.value)
    assert f"optuna {optuna.__version__}" in message
    assert f"{api.module}.{api.name}" in message
    assert "make setup" in message


def test_a_missing_method_is_named_with_its_class():
    class Optimizer:
        pass

    with pytest.raises(UserError, match=r"keras \d.*Optimizer\._all_reduce_sum_gradients"):
        _compat.sum_over_replicas(Optimizer(), [], [])


def test_the_id_of_a_trial():
    study = optuna.create_study()
    trial = study.ask()
    again = optuna.Trial(study, _compat.optuna_trial_id(study.get_trials()[0]))
    assert again.number == trial.number
    assert _compat.optuna_trial_id(again) == _compat.optuna_trial_id(trial)


def test_a_session_runs_by_handles():
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        x = tf.compat.v1.placeholder(tf.float32, [None])
        doubled = 2.0 * x
        _compat.extend_graph(session)
        options = tf.compat.v1.RunOptions(timeout_in_ms=60_000).SerializeToString()
        feeds = {_compat.tensor_handle(x): np.array([1.0, 3.0], np.float32)}
        found = _compat.run_session(session, options, feeds, [_compat.tensor_handle(doubled)])
        np.testing.assert_array_equal(found, [[2.0, 6.0]])
