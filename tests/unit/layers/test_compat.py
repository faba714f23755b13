"""The private APIs of other packages: all are there, and a missing one is named."""

import ast
import importlib
import pathlib

import keras
import pytest
from packaging.specifiers import SpecifierSet

import layers
from layers import _compat
from layers._compat import MissingAPIError, PrivateAPI

#: Packages that `layers` may import, and the parts of them that are not public.
PRIVATE = ("keras.src", "tensorflow.python", "tensorflow.compiler", "jax._src", "jaxlib")
APIS = sorted({api for apis in _compat.PRIVATE_APIS.values() for api in apis})


@pytest.mark.parametrize("api", APIS, ids=lambda api: f"{api.module}.{api.name}")
def test_the_installed_release_has_it(api):
    if api not in _compat.PRIVATE_APIS[keras.backend.backend()]:
        pytest.skip("of another backend")
    assert callable(api.load())


@pytest.mark.parametrize(
    "api",
    [
        PrivateAPI("keras.src.backend", "no_such_loop", "keras", ">=3.15,<3.16", "the loop"),
        PrivateAPI("keras.src.no_such_module", "rnn", "keras", ">=3.15,<3.16", "the loop"),
    ],
)
def test_a_missing_one_is_named_with_the_versions_that_have_it(api):
    with pytest.raises(MissingAPIError) as raised:
        api.load()
    message = str(raised.value)
    assert f"{api.module}.{api.name}" in message
    assert f"keras {keras.__version__}" in message
    assert "keras>=3.15,<3.16" in message
    assert isinstance(raised.value, ImportError)


def test_the_layers_do_not_load_without_the_loop(monkeypatch):
    from layers import unfold

    monkeypatch.delattr("keras.src.backend.rnn")
    with pytest.raises(MissingAPIError, match=r"keras\.src\.backend\.rnn is missing from keras"):
        importlib.reload(unfold)


def test_the_project_requires_versions_that_have_it():
    pyproject = pathlib.Path(layers.__file__).parents[1] / "pyproject.toml"
    declared = pyproject.read_text()
    for api in APIS:
        assert SpecifierSet(api.versions)  # a valid range
        assert f"{api.package}{api.versions}" in declared


def test_no_other_module_imports_a_private_part():
    for path in pathlib.Path(layers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{a.name}" for a in node.names]
            assert not [n for n in names if n.startswith(PRIVATE)], path.name
