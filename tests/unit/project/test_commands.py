"""Every command of README, docs and configs is one that there is, with a config that loads."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from pipelines.cli.main import make_parser
from pipelines.engine.config import loader
from pipelines.engine.tasks.catalog import find_config, get_config
from tests.support import ROOT
from tests.support.documents import Command, commands, unfold_arguments

#: What stands for a name of the reader's own, at the end of a word.
PLACEHOLDERS = ("TASK", "NAME")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A virtual environment that looks as if it were set up."""
    folder = tmp_path_factory.mktemp("venv")
    (folder / "bin").mkdir()
    (folder / ".ready-cpu").touch()
    for name in ("unfold", "python", "uv"):
        (folder / "bin" / name).write_text("#!/bin/sh\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def filled_in(command: Command) -> Command:
    """The command for the sentiment task, where a page leaves the task open."""
    words = [word for word in command.words if word != "…"]
    for placeholder in PLACEHOLDERS:
        words = [re.sub(rf"(^|-){placeholder}$", r"\1sentiment", word) for word in words]
    return command._replace(words=tuple(words))


@pytest.mark.parametrize("command", sorted(set(commands())), ids=str)
def test_a_command_can_be_typed_as_it_is_shown(command, environment, monkeypatch):
    monkeypatch.chdir(ROOT)
    # The page on adding a task has a pipeline of another package.
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "outside"))
    parser = make_parser()
    for arguments in unfold_arguments(filled_in(command), environment):
        if len(arguments) == 1 or "--help" in arguments:
            assert f" {arguments[0]} " in parser.format_help()  # only named
            continue
        args = parser.parse_args(arguments, argparse.Namespace(argv=arguments))
        if arguments[0] in ("train", "compare", "sweep") and getattr(args, "resume", None) is None:
            if args.config is not None and "-1a2b3c4d" in args.config:
                continue  # the reader's own, which a sweep has written
            file = find_config(args.task, args.config)
            loader.load(file, get_config(args.task), args.set)
