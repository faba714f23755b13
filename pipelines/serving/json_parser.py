"""JSON as TensorFlow Serving reads it.

Beyond the standard, numbers may be NaN or infinite, a byte order mark may come first, and of a key
that occurs twice the first value counts. orjson does nearly all of the work: Python's own parser
takes many times as long, and nothing else in the process runs meanwhile.
"""

from __future__ import annotations

import codecs
import json
import random
import re
from typing import Any

import orjson

from pipelines.serving.errors import RequestError

_NON_FINITE = {b"NaN": float("nan"), b"Infinity": float("inf"), b"Inf": float("inf")}
#: What stands for each of them while orjson parses: a number that no client sends.
_MARKS = {
    name: f"{random.SystemRandom().uniform(1, 9):.9f}e-{300 + i}".encode()
    for i, name in enumerate(_NON_FINITE)
}
_VALUES = {
    sign * float(_MARKS[name]): sign * value
    for name, value in _NON_FINITE.items()
    for sign in (1, -1)
}
#: One of them as a value of its own. A search for what comes before it would take long.
_NAME = re.compile(
    b"|".join(
        rb"%b(?![^\]},\s])(?:(?<=[\[:,\s]%b)|(?<=[\[:,\s]-%b))" % (name, name, name)
        for name in _NON_FINITE
    )
)
#: Longest body in which repeated keys are looked for, and maximum number of keys to count.
_MAX_CHECKED_BYTES, _MAX_COUNTED_KEYS = 1_000_000, 50


def parse(body: bytes) -> tuple[Any, bool]:
    """Parse a JSON document.

    Returns:
        Its content, and whether `without_mark` is needed for each number and text in it.

    Raises:
        RequestError: With status 400 if it cannot be parsed.
    """
    if not body:
        raise RequestError(400, "JSON Parse error: The document is empty")
    body = body.removeprefix(codecs.BOM_UTF8)
    marks = 0
    try:
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            body, marks = _NAME.subn(lambda name: _MARKS[name[0]], body)
            if not marks:
                raise
            content = orjson.loads(body)
        if _may_repeat_keys(body, content):
            content = json.loads(body, object_pairs_hook=_first_of_each, parse_int=_integer)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise RequestError(400, f"JSON Parse error: {error}") from None
    return content, marks > 0


def without_mark(value: Any) -> Any:
    """Return a JSON value with the number that a mark stands for."""
    if isinstance(value, float):
        return _VALUES.get(value, value)
    if isinstance(value, str):  # such as "one, NaN, two"
        for name, mark in _MARKS.items():
            value = value.replace(mark.decode(), name.decode())
    return value


def _may_repeat_keys(body: bytes, content: Any) -> bool:
    """Return whether a key may occur twice in an object, of which orjson keeps the last value.

    The keys of the document are counted, and those of its objects and lists of objects, as far as
    they are not written with needless escapes.
    """
    if not isinstance(content, dict) or len(body) > _MAX_CHECKED_BYTES:
        return False
    expected = dict.fromkeys(content, 1)
    for value in content.values():
        count, inner = 1, value
        if isinstance(value, list) and value:
            count, inner = len(value), value[0]
        if isinstance(inner, dict):
            for key in inner:
                expected[key] = expected.get(key, 0) + count
    return len(expected) > _MAX_COUNTED_KEYS or any(
        body.count(orjson.dumps(key)) > count for key, count in expected.items()
    )


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _integer(text: str) -> int | float:
    """Return an integer of 64 bits, or else a float, as orjson does."""
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(number)
