"""Files from elsewhere are data, and are never executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

from pipelines.engine.config import loader as configs
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs import mlflow_store
from pipelines.sentiment.config import SentimentConfig
from tests.support import ROOT

SOURCES = sorted(p for folder in ("layers", "pipelines") for p in (ROOT / folder).rglob("*.py"))

#: Functions, by their last names, that execute what they read, or write to paths within it.
FORBIDDEN = {
    "eval", "exec", "compile_command", "unsafe_load", "full_load", "load_all", "extractall",
    "unpack_archive", "enable_unsafe_deserialization", "system", "popen", "marshal",
}  # fmt: skip
#: Modules that do, and the files that may import them: only the reader of one known pickle.
MODULES = {"pickle": {"efficientnet.py"}, "shelve": set(), "marshal": set(), "dill": set()}
MODULES |= {"joblib": set(), "cloudpickle": set()}


def calls() -> Iterator[tuple[Path, str, ast.Call]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), node


def argument(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def test_no_function_that_executes_its_input_is_called():
    for path, name, call in calls():
        where = f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        last = name.rpartition(".")[2]
        assert last not in FORBIDDEN, where
        assert argument(call, "shell") is None, where
        assert argument(call, "safe_mode") in (None, "True"), where
        if name == "np.load":
            assert argument(call, "allow_pickle") == "False", where
        if last == "YAML":
            assert argument(call, "typ") == "'safe'", where


def test_no_module_that_executes_its_input_is_imported():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                allowed = MODULES.get(name.partition(".")[0])
                assert allowed is None or path.name in allowed, f"{path}: {name}"


def test_a_config_cannot_create_objects(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(f"data: {{source: !!python/object/apply:os.mkdir ['{tmp_path}/made']}}\n")
    with pytest.raises(UserError):
        configs.load(file, SentimentConfig)
    assert not (tmp_path / "made").exists()


def test_a_model_file_that_contains_code_is_rejected(tmp_path):
    """Keras's safe mode, which `load_model` has unless it is told otherwise."""
    inputs = keras.Input((2,))
    made = tmp_path / "made"
    code = eval(f"lambda x: __import__('pathlib').Path({str(made)!r}).touch() or x")
    model = keras.Model(inputs, keras.layers.Lambda(code, output_shape=(2,))(inputs))
    model.save(tmp_path / "m.keras")
    made.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"unsafe|safe_mode"):
        keras.models.load_model(tmp_path / "m.keras")
    assert not made.exists()


def test_a_password_in_the_address_of_the_store_is_not_shown(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@example.org/mlflow")
    assert mlflow_store.shown_uri() == "https://example.org/mlflow"
    error = OSError("no answer from https://me:secret@example.org/mlflow")
    assert "secret" not in mlflow_store.describe_error(error)
