"""Modules and functions stay small enough to read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

#: Lines of a module and of a function. What is better whole says why: `# Whole: …` in its first
#: lines.
MODULE, FUNCTION = 400, 60
WHOLE = "# Whole: "


def modules() -> Iterator[tuple[Path, list[str]]]:
    for folder in ("layers", "pipelines"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8").splitlines()


def test_no_module_is_longer_than_a_reader_can_hold():
    long = {
        str(path): len(lines)
        for path, lines in modules()
        if len(lines) > MODULE and not any(WHOLE in line for line in lines[:40])
    }
    assert not long


def test_no_function_is_longer_than_a_screen():
    long = {}
    for path, lines in modules():
        for node in ast.walk(ast.parse("\n".join(lines))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            assert node.end_lineno is not None
            body = lines[node.lineno - 1 : node.end_lineno]
            if len(body) > FUNCTION and not any(WHOLE in line for line in body):
                long[f"{path}:{node.lineno} {node.name}"] = len(body)
    assert not long
