"""The pages of the cells: written by the code as it is, and their numbers those of the layers."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from keras import ops

from layers import Bidirectional
from pipelines.lab import cells
from pipelines.lab.cells import CELLS, FOLDER, INPUTS, equations

X = np.array(INPUTS, "float32")[None, :, None]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return cells.files()


def test_the_files_are_what_the_code_writes(written):
    found = {p.name: p.read_text(encoding="utf-8") for p in FOLDER.iterdir()}
    assert set(found) == set(written)
    for name, text in written.items():
        assert found[name] == text, f"{name} is out of date: python -m pipelines.lab.cells"


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_the_arithmetic_is_what_the_layer_computes(name):
    traced = cells.layer_of(name).trace(X)
    values = CELLS[name].work().values
    assert set(values) == set(traced) - {"pre_activation"}
    for part, numbers in values.items():
        computed = ops.convert_to_numpy(traced[part])[0, :, 0]
        np.testing.assert_allclose(numbers, computed, atol=1e-6)


def test_so_it_is_in_both_directions():
    one = cells.layer_of("rnn")
    both = Bidirectional(one)
    both.build((None, None, 1))
    for layer in (both.forward_layer, both.backward_layer):
        layer.set_weights(one.get_weights())
    found = ops.convert_to_numpy(both(X))[0]
    values = CELLS["bidirectional"].work().values
    np.testing.assert_allclose(found, np.stack(list(values.values()), axis=-1), atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_what_is_written_down_is_right(name, written):
    """Each line as a reader checks it: the numbers give what stands behind them."""
    page = written[f"{name}.md"].replace("−", "-")
    lines = [line for line in page.splitlines() if re.match(r"\S{1,3}_\d = ", line)]
    assert len(lines) == {"rnn": 2, "lstm": 12, "gru": 8, "bidirectional": 6}[name]
    for line in lines:
        *_, working, result = re.sub(r"(σ|tanh)\((-?[\d.]+)\) = ", "", line).split(" = ")
        formula = working.replace("·", "*").replace("σ", "sigmoid")
        here = {"sigmoid": lambda a: 1 / (1 + np.exp(-a)), "tanh": np.tanh}
        assert eval(formula, here) == pytest.approx(float(result), abs=2e-4), line


def test_the_code_on_a_page_runs_and_gives_its_table(written):
    for name in ("rnn", "lstm", "gru"):
        (code,) = re.findall(r"```python\n(.*?)```", written[f"{name}.md"], flags=re.DOTALL)
        here: dict = {}
        exec(code.replace("layer.trace(x)", "found = layer.trace(x)"), here)
        last = float(ops.convert_to_numpy(here["found"]["hidden_state"])[0, -1, 0])
        assert f"| {last:.4f} |".replace("-", "−") in written[f"{name}.md"]


def test_equations_are_those_of_the_layers(written):
    for name, cell in CELLS.items():
        for line in equations(cell.kind).splitlines():
            assert line in written[f"{name}.md"]
            assert line.strip() in (cell.kind.__doc__ or "")
    assert equations(CELLS["gru"].kind).count("h̃_t = ") == 2


@pytest.mark.parametrize("name", CELLS)
def test_drawings_are_whole_and_inside_their_frame(name, written):
    tree = ElementTree.fromstring(written[f"{name}.svg"])
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
    assert "http" not in written[f"{name}.svg"].replace("http://www.w3.org/2000/svg", "")
