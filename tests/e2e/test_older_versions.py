"""What version 0.1 wrote (runs, exports, a model of layers) still loads and answers the same.

The archive holds one small run and one export of each task, with the data they were trained on
and the answers they gave then.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import layers  # noqa: F401 (registers the layers)
from pipelines.engine.runs.run import Run
from tests.support import ROOT
from tests.support.commands import ok, unfold_in_process
from tests.support.servers import serving

ARCHIVE = ROOT / "tests/fixtures/version-0.1.tar.xz"
TASKS = ("sentiment", "captioning", "translation", "forecasting", "generation")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def answers(written: Path) -> dict[str, dict]:
    return json.loads((written / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture
def at_home(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands work in the older version's folder."""
    monkeypatch.setenv("UNFOLD_HOME", str(written))
    monkeypatch.setenv("UNFOLD_DATA", str(written / "data"))
    monkeypatch.chdir(written)
    return written


def assert_alike(found: object, expected: object) -> None:
    """Equal texts and keys, numbers within rounding."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        # A newer version may say more.
        assert expected.keys() <= found.keys()
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    else:
        assert found == expected


@pytest.mark.parametrize("task", TASKS)
def test_a_run_evaluates_and_predicts_as_before(task, at_home, answers):
    before = answers[task]
    assert_alike(ok(unfold_in_process("evaluate", task, "--json")), before["evaluate"])
    predicted = ok(unfold_in_process("predict", task, "--json", "--", before["input"]))
    assert_alike(predicted, before["predict"])


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_exported_again(task, at_home):
    exported = ok(unfold_in_process("export", task, "--json", "--run", "2026"))
    again = tf.saved_model.load(exported["folder"]).signatures["serving_default"]
    first = tf.saved_model.load(str(at_home / "exports" / task / "1"))
    older = first.signatures["serving_default"]
    assert again.structured_outputs.keys() == older.structured_outputs.keys()
    assert again.structured_input_signature[1].keys() == older.structured_input_signature[1].keys()


@pytest.mark.parametrize("task", TASKS)
def test_new_data_is_compared_with_that_of_a_run_without_a_digest(task, at_home):
    source = str(Run.find(task, None).config().data.source)
    done = unfold_in_process("drift", task, "--json", "--data", source)
    assert "kept no record of its inputs; it is made now" in done.stderr
    assert all(feature["psi"] >= 0 for feature in ok(done)["features"])


def test_exports_are_served_as_before(written, answers):
    requests = {
        "sentiment": {"text": answers["sentiment"]["input"]},
        "translation": {
            "text": answers["translation"]["input"], "beam_width": 5, "max_length": 12,
        },
        "generation": {
            "prompt": answers["generation"]["input"], "temperature": 0, "max_length": 3, "seed": 1,
        },
    }  # fmt: skip
    with serving(written) as server:
        for task, request in requests.items():
            reply = server.post({"instances": [request]}, f"/v1/models/{task}:predict")
            assert reply.status_code == 200, reply.text
            (found,) = reply.json()["predictions"]
            expected = answers[task]["predict"]
            if task == "sentiment":
                assert found["label"] == expected["label"]
                assert found["score"] == pytest.approx(expected["score"], rel=1e-4)
            elif task == "translation":
                assert found["text"] == expected["text"]
            else:
                assert found["text"] if isinstance(found, dict) else found
        models = server.get("/v1/models/forecasting/metadata")
        assert models.status_code == 200
        assert server.get("/v1/models/captioning").json()["model_version_status"]


def test_layers_load_and_answer_as_before(written):
    model = keras.models.load_model(written / "layers.keras")
    with np.load(written / "layers.npz") as saved:
        y, h = model.predict(saved["x"], verbose=0)
        np.testing.assert_allclose(y, saved["y"], atol=1e-6)
        np.testing.assert_allclose(h, saved["h"], atol=1e-6)
