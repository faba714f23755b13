"""``unfold image``."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess

from pipelines.cli.options import Commands, add_command
from pipelines.cli.serve import require_export
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.workflows import image

#: What can build an image; the first that is installed does.
_BUILDERS = ("docker", "podman")


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    summary = "Build a container image that serves an exported model."
    parser = add_command(commands, "image", run, summary, task=False)
    parser.add_argument("name", metavar="NAME", help="the model; its newest version is exported")
    parser.add_argument(
        "--kind", choices=image.KINDS, default="unfold", help="the server; default: unfold"
    )


def run(args: argparse.Namespace, console: Console) -> None:
    """Stage the build context, build the image, and print its tag.

    Raises:
        UserError: The model has no export, or the image could not be built.
    """
    require_export(args.name)
    context = image.stage(args.name, args.kind)
    console.say(f"build context: {context.folder}")
    builder = next((name for name in _BUILDERS if shutil.which(name)), None)
    if builder is None:
        by_hand = shlex.join(context.build_command(_BUILDERS[0]))
        raise UserError(
            f"neither {' nor '.join(_BUILDERS)} is installed; where one of them is: {by_hand}"
        )
    command = context.build_command(builder)
    console.say(shlex.join(command))
    if code := subprocess.run(command).returncode:
        raise UserError(
            f"{builder} ended with exit code {code}; to try again: {shlex.join(command)}"
        )
    print(context.tag)
