"""The process of one training of a group; see `pipelines.engine.runs.group`.

It reports each epoch as a line of JSON on standard output, and reads ``on`` or ``stop`` for an
answer. Where whoever started it is gone, it ends as if interrupted, and can be continued.
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
    console = Console()
    # What libraries print is no report.
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
        where = devices.select(config.device)
        from pipelines.workflows import train

        child = GroupMember(group.name, key, mode == "trial", after_epoch)
        begun = group.runs().get(key)
        if begun is None:
            train.train(config, where, console, child=child)
        else:
            train.resume(begun, where, console, child=child)

    process.finish(train, console)


if __name__ == "__main__":
    main(*sys.argv[1:])
