"""Commands and options as the user types them: ``make train-TASK`` or ``unfold train TASK``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

#: Environment variable that the Makefile sets to "make".
DIALECT_VARIABLE = "UNFOLD_DIALECT"


def command(
    verb: str,
    task: str | None = None,
    *,
    run: str | None = None,
    config: str | None = None,
    name: str | None = None,
) -> str:
    """Return a command as the user would type it.

    Args:
        verb: The command, e.g. "train".
        task: The task.
        run: A run's id; for "train", the run to resume.
        config: A config file.
        name: The name of a model; left out if it is the task's.
    """
    if _from_make():
        words = ["make", f"{verb}-{task}" if task else verb]
        run_option, config_option = "RUN=", "CONFIG="
    else:
        words = ["unfold", verb, *([task] if task else [])]
        run_option, config_option = "--resume " if verb == "train" else "--run ", "--config "
    if config:
        words.append(f"{config_option}{config}")
    if run:
        words.append(f"{run_option}{run}")
    if name not in (None, task):
        words.append(option("name", name))
    return " ".join(words)


def with_input(command: str, text: str = "…") -> str:
    """Return a command with an input, as the user would type both."""
    return f'{command} INPUT="{text}"' if _from_make() else f'{command} "{text}"'


def option(name: str, value: object) -> str:
    """Return an option as the user would type it, e.g. ``--port 8502`` or ``PORT=8502``."""
    if _from_make():
        variable = {"grpc-port": "GRPC"}.get(name, name.upper())
        return f"{variable}={value}"
    return f"--{name} {value}"


def flag(name: str) -> str:
    """Return an option without a value as the user would type it: ``--force`` or ``FORCE=1``."""
    return f"{name.upper()}=1" if _from_make() else f"--{name}"


def settings(pairs: Sequence[str]) -> str:
    """Return ``KEY=VALUE`` pairs as the user would set them."""
    if _from_make():
        return f'SET="{" ".join(pairs)}"'
    return " ".join(f"--set {shlex.quote(pair)}" for pair in pairs)


def _from_make() -> bool:
    return os.environ.get(DIALECT_VARIABLE) == "make"
