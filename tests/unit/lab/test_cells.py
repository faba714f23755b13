"""The generated pages of the cells are up to date, and agree with the layers."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from keras import ops

from layers import Bidirectional
from pipelines.lab.cells.examples import INPUTS, example_layer
from pipelines.lab.cells.pages import CELLS, FOLDER, equations, files

X = np.array(INPUTS, "float32")[None, :, None]


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return files()


def test_files_are_up_to_date(generated: dict[str, str]) -> None:
    committed = {p.name: p.read_text(encoding="utf-8") for p in FOLDER.iterdir()}
    assert set(committed) == set(generated)
    for name, text in generated.items():
        assert committed[name] == text, f"{name} is out of date: python -m pipelines.lab.cells"


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_examples_agree_with_the_layers(name: str) -> None:
    traced = example_layer(name).trace(X)
    values = CELLS[name].example().values
    assert set(values) == set(traced) - {"pre_activation"}
    for quantity, numbers in values.items():
        computed = ops.convert_to_numpy(traced[quantity])[0, :, 0]
        np.testing.assert_allclose(numbers, computed, atol=1e-6)


def test_bidirectional_example_agrees_with_the_layer() -> None:
    layer = example_layer("rnn")
    both = Bidirectional(layer)
    both.build((None, None, 1))
    for direction in (both.forward_layer, both.backward_layer):
        direction.set_weights(layer.get_weights())
    computed = ops.convert_to_numpy(both(X))[0]
    values = CELLS["bidirectional"].example().values
    np.testing.assert_allclose(computed, np.stack(list(values.values()), axis=-1), atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_lines_of_working_are_correct(name: str, generated: dict[str, str]) -> None:
    """Evaluating each formula gives the result on its line."""
    page = generated[f"{name}.md"].replace("−", "-")
    lines = [line for line in page.splitlines() if re.match(r"\S{1,3}_\d = ", line)]
    assert len(lines) == {"rnn": 2, "lstm": 12, "gru": 8, "bidirectional": 6}[name]
    for line in lines:
        *_, working, result = re.sub(r"(σ|tanh)\((-?[\d.]+)\) = ", "", line).split(" = ")
        formula = working.replace("·", "*").replace("σ", "sigmoid")
        functions = {"sigmoid": lambda a: 1 / (1 + np.exp(-a)), "tanh": np.tanh}
        assert eval(formula, functions) == pytest.approx(float(result), abs=2e-4), line


def test_code_on_the_pages_reproduces_their_tables(generated: dict[str, str]) -> None:
    for name in ("rnn", "lstm", "gru"):
        (code,) = re.findall(r"```python\n(.*?)```", generated[f"{name}.md"], flags=re.DOTALL)
        namespace: dict[str, Any] = {}
        exec(code.replace("layer.trace(x)", "trace = layer.trace(x)"), namespace)
        last = float(ops.convert_to_numpy(namespace["trace"]["hidden_state"])[0, -1, 0])
        assert f"| {last:.4f} |".replace("-", "−") in generated[f"{name}.md"]


def test_equations_are_those_of_the_layers(generated: dict[str, str]) -> None:
    for name, cell in CELLS.items():
        for line in equations(cell.layer).splitlines():
            assert line in generated[f"{name}.md"]
            assert line.strip() in (cell.layer.__doc__ or "")
    assert equations(CELLS["gru"].layer).count("h̃_t = ") == 2


@pytest.mark.parametrize("name", CELLS)
def test_drawings_stay_inside_their_frame(name: str, generated: dict[str, str]) -> None:
    tree = ElementTree.fromstring(generated[f"{name}.svg"])
    _, _, width, height = map(float, tree.attrib["viewBox"].split())
    spans = {"x": width, "cx": width, "y": height, "cy": height}
    for element in tree.iter():
        for key, most in spans.items():
            if key in element.attrib:
                assert 0 <= float(element.attrib[key]) <= most
        for point in element.attrib.get("points", "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert "http" not in generated[f"{name}.svg"].replace("http://www.w3.org/2000/svg", "")
