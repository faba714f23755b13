"""The process of one training of a group; see `pipelines.groups`.

It reports each epoch as a line of JSON on standard output, and reads ``on`` or ``stop`` for an
answer. Where whoever started it is gone, it ends as if interrupted, and can be continued.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pipelines import cli, devices
from pipelines import config as configs
from pipelines.console import Console
from pipelines.groups import Group
from pipelines.runs import Child
from pipelines.tasks import get_config


def main(name: str, key: str, mode: str) -> None:
    console = Console()
    # What libraries print is no report.
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def after_epoch(report: dict[str, Any]) -> None:
        from pipelines.training import Pruned

        try:
            print(json.dumps(report), file=reports, flush=True)
        except BrokenPipeError:
            raise KeyboardInterrupt from None
        answer = sys.stdin.readline().strip()
        if not answer:
            raise KeyboardInterrupt
        if answer == "stop":
            raise Pruned

    def train() -> None:
        group = Group(name)
        config = configs.load(group.config_file(key), get_config(group.task))
        where = devices.select(config.device)
        from pipelines import runner

        child = Child(group.name, key, mode == "trial", after_epoch)
        begun = group.runs().get(key)
        if begun is None:
            runner.train(config, where, console, child=child)
        else:
            runner.resume(begun, where, console, child=child)

    cli.finish(train, console)


if __name__ == "__main__":
    main(*sys.argv[1:])
