"""Measure the costs of a model: memory in training, and time to answer a request."""

from __future__ import annotations

import re
import resource
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

R = TypeVar("R")

#: Number of requests that are timed, and seconds after which no more are sent.
_REQUESTS, _MAX_SECONDS = 20, 2.0


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process in MB, without GPU memory."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would start from the peak of the parent process.
        peak = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), flags=re.MULTILINE)
        if peak is not None:
            return int(peak[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes, on macOS


def sample_evenly(records: Sequence[R]) -> list[R]:
    """Return up to 20 records at even distances, the first and the last included."""
    indices = np.linspace(0, len(records) - 1, min(_REQUESTS, len(records))).astype(int)
    return [records[i] for i in indices]


def latency_ms(served: Any, requests: Iterable[dict[str, Any]]) -> float:
    """Return the median time of one request to a SavedModel, in milliseconds.

    The first request is a warm-up, which is not counted unless it is the only one.

    Args:
        served: a loaded SavedModel.
        requests: inputs of its signature ``serving_default``.
    """
    serve = served.signatures["serving_default"]
    times: list[float] = []
    for request in requests:
        started = time.perf_counter()
        for output in serve(**request).values():
            output.numpy()
        times.append(time.perf_counter() - started)
        if sum(times[1:]) > _MAX_SECONDS:
            break
    return 1e3 * statistics.median(times[1:] or times)
