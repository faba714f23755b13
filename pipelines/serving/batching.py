"""Dynamic batching: requests that arrive while a model is busy run together as the next batch.

A single request never waits for others. After a batch of several requests, waiting a moment
(``batching.window_ms``) pays off, because the same clients are about to send their next requests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from pipelines.serving.config import BatchingConfig, InputLimitsConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import Arrays
from pipelines.serving.servable import Signature


@dataclass(eq=False)
class _PendingRequest:
    inputs: Arrays
    #: Requests with equal keys can share a batch; None runs alone.
    key: Hashable
    rows: int
    deadline: float
    result: asyncio.Future[Arrays]


class Batcher:
    """Run the requests for one signature in batches.

    A batch starts beside others if it is at least half full, since the model would be idle while
    the event loop exchanges requests and responses. A signature whose rows cannot be batched (see
    `Signature.is_batchable`) runs each request by itself.

    Args:
        signature: The signature to call.
        config: Size and delay of batches.
        workers: The threads that run the model.
        concurrency: Maximum number of calls in parallel.
        on_batch: Called with the number of rows of each batch.
    """

    def __init__(
        self,
        signature: Signature,
        config: BatchingConfig,
        workers: Executor,
        concurrency: int = 1,
        on_batch: Callable[[int], object] = lambda rows: None,
    ) -> None:
        self._signature, self._config, self._workers = signature, config, workers
        self._on_batch = on_batch
        self._queue: deque[_PendingRequest] = deque()
        self._concurrency = concurrency
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps only weak references

    async def __call__(self, inputs: Arrays, seconds: float) -> Arrays:
        """Return the outputs for one request.

        Args:
            inputs: Arrays by name.
            seconds: Time limit for the outputs.

        Raises:
            RequestError: With status 400 or 504, see `Signature`.
        """
        rows, key = self._batch_key(inputs)
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + seconds
        request = _PendingRequest(inputs, key, rows, deadline, loop.create_future())
        self._queue.append(request)
        if self._may_start():
            self._running += 1
            task = loop.create_task(self._run_queue())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(seconds + 0.5):  # the model itself stops at ``seconds``
                return await request.result
        except TimeoutError:
            raise _timed_out() from None

    def _may_start(self) -> bool:
        if self._running == 0:
            return True
        if self._running >= self._concurrency:
            return False
        waiting = sum(request.rows for request in self._queue)
        return not self._signature.is_batchable or 2 * waiting >= self._config.max_rows

    def _batch_key(self, inputs: Arrays) -> tuple[int, Hashable]:
        """Return the number of rows, and the key of requests that can share a batch."""
        sizes = {a.shape[0] for a in inputs.values() if a.ndim}
        rows = max(sizes, default=1)
        # The model decides what other shapes mean, one entry for all rows, and no rows at all.
        specs = self._signature.inputs
        fits = all(specs[name].fits(array.shape) for name, array in inputs.items())
        if not self._signature.is_batchable or not fits or len(sizes) != 1 or rows == 0:
            return rows, None
        names = sorted(InputLimitsConfig.model_fields.keys() & inputs.keys())
        values = [frozenset(inputs[name].ravel().tolist()) for name in names]
        if any(len(found) > 1 for found in values):
            return rows, None
        return rows, (*(a.shape[1:] for a in inputs.values()), *values)

    async def _run_queue(self) -> None:
        loop = asyncio.get_running_loop()
        had_several = False
        try:
            while self._queue:
                if had_several and sum(r.rows for r in self._queue) < self._config.max_rows:
                    await asyncio.sleep(self._config.window_ms / 1000)
                batch = self._next_batch()
                had_several = len(batch) > 1
                if batch:
                    await loop.run_in_executor(self._workers, self._run, batch, loop)
        finally:
            self._running -= 1  # or no further request would ever run

    def _next_batch(self) -> list[_PendingRequest]:
        """Remove the first request and those that fit into its batch from the queue."""
        pending = [request for request in self._queue if not request.result.done()]
        batch: list[_PendingRequest] = []
        rest: deque[_PendingRequest] = deque()
        rows = 0
        for request in pending:
            fits = not batch or (
                request.key is not None
                and request.key == batch[0].key
                and rows + request.rows <= self._config.max_rows
            )
            if fits:
                batch.append(request)
                rows += request.rows
            else:
                rest.append(request)
        self._queue = rest
        return batch

    def _run(self, batch: list[_PendingRequest], loop: asyncio.AbstractEventLoop) -> None:
        """Run a batch in a worker thread and pass each request its rows."""
        results: list[Arrays | Exception]
        try:
            results = [*self._outputs(batch)]
        except Exception as error:  # noqa: BLE001 - passed on to the request
            if len(batch) == 1:
                results = [error]
            else:
                # One request is at fault; run each alone so that the others get their outputs.
                for request in batch:
                    self._run([request], loop)
                return
        loop.call_soon_threadsafe(_set_results, batch, results)

    def _outputs(self, batch: list[_PendingRequest]) -> list[Arrays]:
        remaining = max(request.deadline for request in batch) - time.monotonic()
        if remaining <= 0:
            raise _timed_out()
        rows = [request.rows for request in batch]
        self._on_batch(sum(rows))
        if len(batch) == 1:
            return [self._signature(batch[0].inputs, remaining)]
        joined = {
            name: np.concatenate([request.inputs[name] for request in batch])
            for name in batch[0].inputs
        }
        outputs = self._signature(joined, remaining)
        if any(len(a) != sum(rows) for a in outputs.values()):
            raise ValueError("the model does not return one output per row")
        ends = np.cumsum(rows)
        return [
            {name: a[end - size : end] for name, a in outputs.items()}
            for end, size in zip(ends, rows, strict=True)
        ]


def _timed_out() -> RequestError:
    return RequestError(504, "the answer takes too long (limits.answer_seconds)")


def _set_results(batch: list[_PendingRequest], results: list[Arrays | Exception]) -> None:
    for request, result in zip(batch, results, strict=True):
        if request.result.done():
            continue  # the client has left
        if isinstance(result, Exception):
            request.result.set_exception(result)
        else:
            request.result.set_result(result)
