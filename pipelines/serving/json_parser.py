"""JSON as TensorFlow Serving reads it.

Beyond the standard, numbers may be NaN and infinite, a byte order mark may come first, and the
first of equal keys counts. orjson does nearly all of the work; Python's parser, which takes several
times as long, reads what orjson rejects or reads otherwise.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any

import orjson

from pipelines.serving.errors import RequestError

_NON_FINITE = re.compile(rb"NaN|Inf")
#: Forms that Python's parser does not know, and all strings, which may contain them.
_SHORT_FORM = re.compile(rb"\bInf\b|-NaN\b")
_STRING_OR_SHORT_FORM = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|-?\bInf\b|-NaN\b', re.DOTALL)
_LONG_FORMS = {"Inf": "Infinity", "-Inf": "-Infinity", "-NaN": "NaN"}
#: What an integer of more than 64 bits looks like, and a number that is infinite as a float.
_LARGE_NUMBER = re.compile(rb"\d{19}|[eE]\+?\d{3}")
#: Maximum number of keys to count: looking for each of very many would take long.
_MAX_COUNTED_KEYS = 50


def parse(body: bytes) -> Any:
    """Parse a JSON document.

    Raises:
        RequestError: With status 400 if it cannot be parsed.
    """
    if not body:
        raise RequestError(400, "JSON Parse error: The document is empty")
    try:
        content = orjson.loads(body.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        if _NON_FINITE.search(body) is None:
            raise RequestError(400, f"JSON Parse error: {error}") from None
        return _parse_slowly(body)
    if isinstance(content, dict) and _may_repeat_keys(body, content):
        return _parse_slowly(body)
    return content


def _may_repeat_keys(body: bytes, content: dict[str, Any]) -> bool:
    """Return whether a key may occur twice in an object, of which orjson keeps the last value.

    The keys of the document are counted, and those of its objects and lists of objects, as far as
    they are not written with needless escapes.
    """
    expected = dict.fromkeys(content, 1)
    for value in content.values():
        count, inner = 1, value
        if isinstance(value, list) and value:
            count, inner = len(value), value[0]
        if isinstance(inner, dict):
            for key in inner:
                expected[key] = expected.get(key, 0) + count
    if len(expected) > _MAX_COUNTED_KEYS:
        return True
    return any(body.count(orjson.dumps(key)) > count for key, count in expected.items())


def _parse_slowly(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig")
        if _SHORT_FORM.search(body):
            text = _STRING_OR_SHORT_FORM.sub(lambda m: _LONG_FORMS.get(m[0], m[0]), text)
        has_large_numbers = _LARGE_NUMBER.search(body) is not None
        content = json.loads(
            text,
            object_pairs_hook=lambda pairs: dict(reversed(pairs)),
            parse_float=_float if has_large_numbers else None,
            parse_int=_integer if has_large_numbers else None,
        )
        if "\\u" in text:
            orjson.dumps(content)  # fails for half of a surrogate pair, which is no text
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError(400, f"JSON Parse error: {error}") from None
    return content


def _integer(text: str) -> int | float:
    """Return an integer of 64 bits, or else a float, as orjson does."""
    if len(text) <= 20 and -(2**63) <= (number := int(text)) < 2**64:
        return number
    return _float(text)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number
