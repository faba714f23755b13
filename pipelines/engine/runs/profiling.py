"""What a model costs: memory while it is trained, and time to answer."""

from __future__ import annotations

import re
import resource
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Requests that are timed, and after so many seconds no further ones.
_REQUESTS, _ENOUGH = 20, 2.0


def peak_memory_mb() -> float:
    """The most memory that this process has held at once (resident, without a GPU's), in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says begins with the peak of the process that started this one.
        held = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), flags=re.MULTILINE)
        if held is not None:
            return int(held[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes, on macOS


def some(records: Sequence[Any]) -> list[Any]:
    """Records from all over a split, to be asked about."""
    which = np.linspace(0, len(records) - 1, min(_REQUESTS, len(records))).astype(int)
    return [records[i] for i in which]


def latency_ms(served: Any, requests: Iterable[dict[str, Any]]) -> float:
    """The median time of one request to a loaded SavedModel, in milliseconds.

    The first one warms up, and is not counted unless it is the only one.
    """
    serve = served.signatures["serving_default"]
    times: list[float] = []
    for request in requests:
        started = time.perf_counter()
        for output in serve(**request).values():
            output.numpy()
        times.append(time.perf_counter() - started)
        if sum(times[1:]) > _ENOUGH:
            break
    return 1e3 * statistics.median(times[1:] or times)
