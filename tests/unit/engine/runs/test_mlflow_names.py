"""Users' words as MLflow names: accepted by a real store, and never the same for two words."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from pipelines.engine.runs import mlflow_names as names

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> MlflowClient:
    folder = tmp_path_factory.mktemp("store")
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture(scope="module")
def experiment(client, tmp_path_factory) -> str:
    return client.create_experiment("words", tmp_path_factory.mktemp("artifacts").as_uri())


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(TEXT, min_size=1, max_size=20))
@example({"Volume ($)", "Volume (€)", "Change %", "", ".", "..", "/", "a//b", "a\n", "x" * 300})
def test_a_store_accepts_every_word(client, experiment, words):
    run = client.create_run(experiment)
    keys = [names.key(word) for word in words]
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key, 1.0, 0, 1) for key in keys],
        params=[Param(key, "v") for key in keys],
    )
    stored = client.get_run(run.info.run_id).data
    assert set(stored.params) == set(stored.metrics) == set(keys)
    assert len(set(keys)) == len(words)


def test_a_made_name_is_not_kept_for_another_word():
    made = names.key("Volume ($)")
    assert made.startswith("Volume ___")
    assert names.key(made) != made


@pytest.mark.parametrize("key", ["data.columns.Open", "test/accuracy", "größe", "a b:c-d_e"])
def test_a_valid_key_is_kept(key):
    assert names.key(key) == key


@given(TEXT, st.integers(20, 100))
def test_a_long_text_is_shortened(text, longest):
    assert len(names.shorten(text, longest)) <= longest
    assert names.shorten(text, longest) == text or len(text) > longest
