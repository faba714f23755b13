"""Which signatures of a SavedModel change its state, such as a counter.

The server may not call them on its own, nor run several requests for them as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: Operations that change variables, tables, queues, random generators or files.
_CHANGING = re.compile(
    r".*Assign|(Resource)?(Sparse)?Apply|ResourceScatter|Scatter(Nd)?(Add|Sub|Mul|Div|Min|Max|"
    r"Update)$|LookupTable(Insert|Import|Remove)|.*Queue(Enqueue|Dequeue|Close)|(Uns|S)tage$|Rng|"
    r"Stateful(?!PartitionedCall)|WriteFile|Save|(Eager)?PyFunc"
)


def changes_state(graph: Any, definition: Any) -> bool:
    """Return whether computing the outputs of a signature changes state.

    Args:
        graph: The model's ``GraphDef``.
        definition: The signature's ``SignatureDef``.
    """
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}

    def sources(name: str) -> Iterator[str]:
        return (_node_name(source) for source in nodes[name].input)

    def callees(name: str) -> Iterator[str]:
        called = (f for node in functions[name].node_def for f in _called_functions(node))
        return (f for f in called if f in functions)

    outputs = (_node_name(info.name) for info in definition.outputs.values())
    reached = [nodes[name] for name in _reachable(outputs, sources)]
    called = (f for node in reached for f in _called_functions(node) if f in functions)
    # All that changes state in a function runs, whether its outputs depend on it or not.
    for name in _reachable(called, callees):
        reached += functions[name].node_def
    return any(_CHANGING.match(node.op) for node in reached)


def _reachable(starts: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    pending = list(starts)
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += following(name)
    return found


def _node_name(tensor: str) -> str:
    """Return the name of the node that a tensor or a control dependency comes from."""
    return tensor.removeprefix("^").partition(":")[0]


def _called_functions(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield from (f.name for f in (value.func, *value.list.func) if f.name)
