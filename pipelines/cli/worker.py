"""A process that trains one member of a group; see `pipelines.engine.runs.group`.

After each epoch it writes a line of JSON to standard output and reads ``on`` or ``stop`` from
standard input. If the process that started it is gone, it ends like an interrupted training, which
can be resumed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pipelines.cli import process
from pipelines.engine.config import loader as configs
from pipelines.engine.core.console import Console
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.run import GroupMember
from pipelines.engine.tasks.catalog import get_config
from pipelines.engine.training import devices

#: Trains one member of a group; its name, key and mode follow.
COMMAND = (sys.executable, "-m", "pipelines.cli.worker")


def main(name: str, key: str, mode: str) -> None:
    """Train one member and end this process.

    Args:
        name: Of the group.
        key: Of the member within the group.
        mode: ``trial`` for a training that may be pruned and is not evaluated.
    """
    console = Console()
    # Standard output is for reports only: what libraries print goes to standard error.
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def after_epoch(report: dict[str, Any]) -> None:
        from pipelines.engine.training.loop import TrialPruned

        try:
            print(json.dumps(report), file=reports, flush=True)
        except BrokenPipeError:
            raise KeyboardInterrupt from None
        answer = sys.stdin.readline().strip()
        if not answer:
            raise KeyboardInterrupt
        if answer == "stop":
            raise TrialPruned

    def train() -> None:
        group = Group(name)
        config = configs.load(group.config_file(key), get_config(group.task))
        selected = devices.select(config.device)
        from pipelines.workflows import train

        member = GroupMember(group.name, key, mode == "trial", after_epoch)
        started = group.runs().get(key)
        if started is None:
            train.train(config, selected, console, member=member)
        else:
            train.resume(started, selected, console, member=member)

    process.finish(train, console)


if __name__ == "__main__":
    main(*sys.argv[1:])
