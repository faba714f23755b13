"""An export must work where this project is not: moved, alone, in a bare TensorFlow process."""

from __future__ import annotations

import errno
import json
import resource
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.export import savedmodel
from pipelines.engine.runs.publishing import publish
from pipelines.engine.runs.run import Run
from pipelines.sentiment.config import CONFIG
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.task import TASK
from tests.support.alone import stands_alone
from tests.support.matrix import thorough_after

LABELS = ["no", "yes", "perhaps"]
WORDS = ["good", "bad", "film", "the", "ünder", "日", "😀", "don't"]
TEXTS = [
    "the good film",
    "",
    "BAD bad film",
    "ÜNDER 日本 😀 don't",
    "unknown words only",
    "good " * 300,
]

#: Runs with TensorFlow and nothing else; any import of this project or of Keras's layers fails.
CLIENT = """
import json
import tensorflow as tf
from pathlib import Path
texts, answers = tf.constant(json.loads(sys.argv[2])), {}
for folder in Path(sys.argv[1]).iterdir():
    model = tf.saved_model.load(str(folder))
    answer = model.signatures["serving_default"](text=texts)
    answers[folder.name] = {
        "label": [x.decode() for x in answer["label"].numpy().tolist()],
        "score": answer["score"].numpy().tolist(),
        "probabilities": answer["probabilities"].numpy().tolist(),
    }
print(json.dumps(answers))
"""

#: Kinds of models.
MODELS = {
    "plain": {"cell": "rnn"},
    "truncated": {
        "cell": "gru", "pool": ["mean"], "initial": "learned", "truncate": 3,
        "token_dropout": 0.5, "embedding_dropout": 0.5,
    },
    "both ways": {"cell": "lstm", "pool": ["last", "max"], "bidirectional": True, "dropout": 0.5},
    "feedforward": {"cell": "feedforward", "pool": ["mean", "max"]},
}  # fmt: skip


def make_config(cell: str, **model: object) -> Experiment:
    return CONFIG.model_validate(
        {
            "data": {"source": "none.csv"},
            "text": {"max_tokens": 40},
            "model": {"cell": cell, "units": [5, 4], "embedding": 6, **model},
        }
    )


def make(config) -> tuple[keras.Model, TextClasses]:
    processor = TextClasses(config.text, WORDS, LABELS)
    model = TASK.build(config, processor)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape, scale=0.7) for w in model.get_weights()])
    return model, processor


TOGETHER = [["plain", "truncated", "both ways"], ["plain", "feedforward"]]


@pytest.fixture(scope="module", params=thorough_after(1, TOGETHER))
def exports(request, tmp_path_factory):
    """Folders of the models, and what the models answer to the texts."""
    folder, answers = tmp_path_factory.mktemp("exports"), {}
    for name in request.param:
        config = make_config(**MODELS[name])
        network, processor = make(config)
        endpoints = TASK.endpoints(config, processor, network)
        inputs = endpoints["serving_default"].inputs
        # Compiled, as it is served: an eager call takes another way through the layers.
        serve = tf.function(
            endpoints["serving_default"].function, list(inputs.values()), autograph=False
        )
        answers[name] = serve(tf.constant(TEXTS))
        served = {"serving_default": savedmodel.Endpoint(serve, inputs)}
        endpoints = endpoints | served if name == "plain" else served  # all endpoints of one
        savedmodel.write(folder / name, network, endpoints, processor.resources())
    return folder, answers


def test_a_moved_export_gives_the_exact_outputs_of_the_model(exports, tmp_path):
    folder, expected = exports
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    hidden = folder.rename(folder.with_name("hidden"))
    try:
        asked = [str(elsewhere), json.dumps(TEXTS)]
        found = stands_alone(CLIENT, *asked, folder=tmp_path, banned=("keras", "mlflow"))
    finally:
        hidden.rename(folder)
    assert set(found) == set(expected)
    for name, answer in found.items():
        probabilities = expected[name]["probabilities"].numpy()
        np.testing.assert_array_equal(np.float32(answer["probabilities"]), probabilities, name)
        np.testing.assert_array_equal(np.float32(answer["score"]), probabilities.max(axis=-1))
        assert answer["label"] == [LABELS[i] for i in probabilities.argmax(axis=-1)]


def test_the_same_answer_alone_and_in_a_batch():
    config = make_config("lstm", bidirectional=True, pool=["last", "mean", "max"])
    network, processor = make(config)
    serve = TASK.endpoints(config, processor, network)["serving_default"].function
    together = serve(tf.constant(TEXTS))["probabilities"].numpy()
    for i, text in enumerate(TEXTS):
        alone = serve(tf.constant([text]))["probabilities"].numpy()[0]
        np.testing.assert_allclose(alone, together[i], rtol=1e-5, atol=1e-6)


def test_training_batches_and_the_export_see_the_same_ids():
    config = make_config("rnn")
    _, processor = make(config)
    rows = processor.encode(TEXTS)
    served = processor.tokenizer.padded(tf.constant(TEXTS)).numpy()
    for i in range(len(TEXTS)):
        np.testing.assert_array_equal(served[i][: rows.lengths[i]], rows[i])
        assert not served[i][rows.lengths[i] :].any()


def test_an_export_holds_core_ops_only(exports):
    folder, names = exports
    for name in names:
        found = savedmodel.ops(folder / name)
        assert "LookupTableFindV2" in found
        assert found <= set(tf.raw_ops.__dict__)
        assert not [op for op in found if op.startswith(("Cudnn", "Xla", "PyFunc"))]


def test_an_op_that_a_cpu_server_lacks_is_refused(tmp_path):
    network, _ = make(make_config("rnn"))

    def classify(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"score": tf.numpy_function(lambda t: np.float32(len(t)), [text], tf.float32)}

    spec = {"text": tf.TensorSpec([None], tf.string, name="text")}
    with pytest.raises(RuntimeError, match="PyFunc"):
        savedmodel.write(
            tmp_path / "m", network, {"serving_default": savedmodel.Endpoint(classify, spec)}, []
        )
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_an_error_of_the_disk(tmp_path):
    config = make_config("feedforward", pool=["mean"])
    network, processor = make(config)
    endpoints = TASK.endpoints(config, processor, network)
    del endpoints["start"], endpoints["step"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*m'") as error:
            savedmodel.write(tmp_path / "m", network, endpoints, processor.resources())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_mlflow_signature_names_columns_and_types(exports):
    signature = savedmodel.mlflow_signature(exports[0] / "plain")
    assert [(c.name, str(c.type)) for c in signature.inputs] == [("text", "DataType.string")]
    outputs = {c.name: str(c.type) for c in signature.outputs}
    assert outputs == {
        "label": "DataType.string",
        "score": "DataType.float",
        "probabilities": "Array(float)",
    }


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path))
    config = make_config("rnn")
    run = Run.create(config, make(config)[1], data={})
    (run.folder / "savedmodel").mkdir()
    (run.folder / "savedmodel" / "saved_model.pb").write_bytes(b"whole")
    return run


def test_versions_count_up_and_leave_others_alone(run, tmp_path):
    root = tmp_path / "exports" / "sentiment"
    (root / "7").mkdir(parents=True)
    (root / "notes").mkdir()
    assert publish(run) == root / "8"
    assert publish(run) == root / "9"
    assert (root / "9" / "saved_model.pb").read_bytes() == b"whole"
    assert list((root / "7").iterdir()) == []


def test_a_run_without_a_model_says_how_to_get_one(run):
    shutil.rmtree(run.folder / "savedmodel")
    with pytest.raises(UserError, match=f"unfold train sentiment --resume {run.id}"):
        publish(run)


def test_not_a_saved_model(tmp_path):
    with pytest.raises(UserError, match="not a SavedModel"):
        savedmodel.ops(tmp_path)
