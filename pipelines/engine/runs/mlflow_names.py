"""Turn users' words, such as column names, into names that every MLflow store accepts."""

from __future__ import annotations

import hashlib
import posixpath
import re

#: The longest key of a parameter, metric or tag, and the longest name of a run.
LONGEST_KEY = 250
#: The longest name of a data set.
LONGEST_DATASET_NAME = 500

_KEY = re.compile(r"[\w\-./: ]+")
#: Ends the names made here, so that no name that is kept equals one that is made.
_SUFFIX = re.compile(r"-[0-9a-f]{12}\Z")


def key(text: str) -> str:
    """Return a valid MLflow key for ``text``; different texts get different keys.

    A valid key is kept. Otherwise, characters that MLflow refuses become ``_``, and a hash of the
    text is appended.
    """
    if _is_valid(text) and not _SUFFIX.search(text):
        return text
    made = _with_hash(re.sub(r"[^\w\-./: ]", "_", text), text, LONGEST_KEY)
    if _is_valid(made):
        return made
    # Its slashes and dots are no path in normal form.
    return _with_hash(re.sub(r"[^\w\-: ]", "_", text), text, LONGEST_KEY)


def shorten(text: str, longest: int) -> str:
    """Return ``text``, or its beginning with a hash of the whole if it is too long."""
    return text if len(text) <= longest else _with_hash(text, text, longest)


def _is_valid(text: str) -> bool:
    return (
        len(text) <= LONGEST_KEY
        and _KEY.fullmatch(text) is not None
        and posixpath.normpath(text) == text
        and not text.startswith(("..", "/"))
        and text != "."
    )


def _with_hash(readable: str, text: str, longest: int) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{readable[: longest - 13]}-{digest}"
