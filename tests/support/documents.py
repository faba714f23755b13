"""The commands and code of README and docs."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:make|unfold) [^`]+)`", re.DOTALL)


class Command(NamedTuple):
    """A command that a page tells its reader to type.

    Attributes:
        page: the page, from the project's folder on.
        words: as the shell splits it, without comments.
    """

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)[:90]}"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    text = page.read_text(encoding="utf-8")
    return [code for tag, code in _BLOCK.findall(text) if tag == language]


def commands() -> Iterator[Command]:
    """The `make` and `unfold` commands of all pages, in blocks and in sentences, and of the
    heads of the configs, each once."""
    found = {}
    for page in PAGES:
        prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
        lines = [line for code in blocks(page, "sh") for line in code.splitlines()]
        lines += [" ".join(code.split()) for code in _INLINE.findall(prose)]
        for line in lines:
            found.setdefault(line, page)
    for config in sorted((ROOT / "configs").rglob("*.yaml")):
        for line in config.read_text(encoding="utf-8").splitlines():
            if re.match(r"#\s+(?:[A-Z_]+=\S+ )*(?:make|unfold) ", line):
                found.setdefault(line.lstrip("# "), config)
    for line, page in found.items():
        for part in line.removeprefix("$ ").split(" && "):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]  # the environment of the command
            if words and words[0] in ("make", "unfold"):
                yield Command(str(page.relative_to(ROOT)), tuple(words))


def unfold_arguments(command: Command, environment: Path) -> list[list[str]]:
    """The arguments with which a command calls ``unfold``; none where it calls other programs.

    Args:
        environment: a virtual environment that looks as if it were set up.
    """
    if command.words[0] == "unfold":
        return [list(command.words[1:])]
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", f"VENV={environment}", *command.words[1:]],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}"
    called = f"{environment}/bin/unfold "
    lines = [line for line in done.stdout.splitlines() if line.startswith(called)]
    return [shlex.split(line)[1:] for line in lines]
