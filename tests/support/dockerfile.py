"""The instructions of a Dockerfile."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction, e.g. ``COPY`` and ``exports exports``; lines are joined."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The words of the exec form.

        Raises:
            ValueError: The value is not in exec form, so a shell would run it.
        """
        words: list[str] = json.loads(self.value)
        return words


def instructions(path: Path) -> list[Instruction]:
    """Return the instructions of a Dockerfile, in order."""
    text = re.sub(r"(?m)^\s*#.*\n", "", path.read_text(encoding="utf-8"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def values(path: Path, name: str) -> list[str]:
    """Return the values of all instructions of one kind."""
    return [value for found, value in instructions(path) if found == name]


def entry_point(path: Path) -> list[str]:
    """Return the words of the entry point."""
    (found,) = (i for i in instructions(path) if i.name == "ENTRYPOINT")
    return found.words


def health_check(path: Path) -> list[str]:
    """Return the words of the health check's command."""
    (value,) = values(path, "HEALTHCHECK")
    return Instruction("CMD", value.partition("CMD ")[2]).words


def environment(path: Path) -> dict[str, str]:
    """Return the variables that the image sets."""
    return dict(pair.split("=", 1) for value in values(path, "ENV") for pair in value.split())
