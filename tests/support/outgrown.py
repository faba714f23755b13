"""Read, learn from and batch data ten times as large as the memory left for them.

    python outgrown.py TASK SMALL LARGE MEGABYTES KEY=VALUE…

A first pass, over SMALL, shows what the process needs whatever the data. From then on the system
lets it have MEGABYTES more, and it goes over LARGE: from disk, and then in memory, for which the
limit is too low. A process of its own: the limit stays.
"""

import gc
import re
import resource
import sys
from pathlib import Path

from pipelines.engine.config import loader as configs
from pipelines.engine.tasks.catalog import find_config, get_config, get_task


def batches(name: str, source: str, overrides: list[str]) -> tuple[int, int]:
    """All that comes before the model: how many records train, and in how many batches."""
    file = find_config(name, None)
    config = configs.load(file, get_config(name), [f"data.source={source}", *overrides])
    task = get_task(name)
    splits = task.load(config)
    processor = task.fit_processor(config, splits)
    gc.collect()  # traced graphs, which do not grow with the data
    feed = task.feed(config, processor, splits)
    for _ in feed.validation():
        pass
    return len(splits.train), sum(1 for _ in feed.train(1))


def held() -> int:
    """Bytes of memory of its own that this process may write to."""
    found = re.search(r"^VmData:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    # The stack of this thread is not counted; those of others have the size of when it started.
    resource.setrlimit(resource.RLIMIT_STACK, (2**23, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    task, small, large, megabytes, *overrides = sys.argv[1:]
    batches(task, small, ["data.keep=disk", *overrides])
    limit = held() + int(megabytes) * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    print("limited", flush=True)
    for keep in ("disk", "memory"):
        print(keep, *batches(task, large, [f"data.keep={keep}", *overrides]), flush=True)
