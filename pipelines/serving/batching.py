"""Requests that come at the same time go through a model together.

While the model computes one batch, the requests that come meanwhile wait, and are the next batch:
a single request never waits for others. After a batch of several requests it is worth a moment
to wait for more, because those clients are about to ask again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.serving.config import BatchingConfig, InputLimitsConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import Arrays
from pipelines.serving.servable import Signature


@dataclass(eq=False)
class _Waiting:
    inputs: Arrays
    #: Those with one key can be answered together; None is answered alone.
    key: Any
    rows: int
    until: float
    answer: asyncio.Future[Arrays]


class Batcher:
    """Answers requests for one signature: one batch at a time, or several requests side by side.

    Args:
        workers: where the model computes.
        side_by_side: requests that are computed at the same time where they cannot be batched.
        note: told the number of rows of every batch.
    """

    def __init__(
        self,
        signature: Signature,
        config: BatchingConfig,
        workers: Executor,
        side_by_side: int = 1,
        note: Callable[[int], object] = lambda rows: None,
    ) -> None:
        self._signature, self._config, self._workers, self._note = signature, config, workers, note
        self._queue: deque[_Waiting] = deque()
        # What cannot be batched is worked on by all workers.
        self._most_running = 1 if signature.by_rows else side_by_side
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()  # or they would be collected

    async def __call__(self, inputs: Arrays, seconds: float) -> Arrays:
        """The outputs of one request.

        Raises:
            RequestError: 400 or 504, see `Signature`.
        """
        rows, key = self._describe(inputs)
        loop = asyncio.get_running_loop()
        one = _Waiting(inputs, key, rows, time.monotonic() + seconds, loop.create_future())
        self._queue.append(one)
        if self._running < self._most_running:
            self._running += 1
            task = loop.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(seconds + 0.5):  # the model itself stops at ``seconds``
                return await one.answer
        except TimeoutError:
            raise RequestError(504, "the answer takes too long (limits.answer_seconds)") from None

    def _describe(self, inputs: Arrays) -> tuple[int, Any]:
        """How many rows these are, and with which others they go."""
        sizes = {a.shape[0] for a in inputs.values() if a.ndim}
        rows = max(sizes, default=1)
        # Inputs of one entry for all rows are the model's business, and so are no rows at all.
        if not self._signature.by_rows or len(sizes) != 1 or rows == 0:
            return rows, None
        equal = [inputs[n] for n in sorted(InputLimitsConfig.model_fields.keys() & inputs.keys())]
        if any(len(set(a.tolist())) > 1 for a in equal):
            return rows, None
        return rows, (*(a.shape[1:] for a in inputs.values()), *(a[0].item() for a in equal))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        several = False
        while self._queue:
            if several and self._waiting_rows() < self._config.max_rows:
                await asyncio.sleep(self._config.window_ms / 1000)
            batch = self._take()
            several = len(batch) > 1
            if batch:
                await loop.run_in_executor(self._workers, self._answer, batch, loop)
        self._running -= 1

    def _waiting_rows(self) -> int:
        return sum(one.rows for one in self._queue)

    def _take(self) -> list[_Waiting]:
        """The first request, and those behind it that go with it."""
        waiting = [one for one in self._queue if not one.answer.done()]
        batch: list[_Waiting] = []
        rows = 0
        for one in waiting:
            fits = not batch or (
                one.key is not None
                and one.key == batch[0].key
                and rows + one.rows <= self._config.max_rows
            )
            if fits:
                batch.append(one)
                rows += one.rows
        taken = set(map(id, batch))
        self._queue = deque(one for one in waiting if id(one) not in taken)
        return batch

    def _answer(self, batch: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        """In a worker: compute, and hand each request its rows."""
        results: list[Arrays | Exception]
        try:
            results = list(self._together(batch))
        except Exception as error:  # noqa: BLE001 - told to whom it concerns
            if len(batch) == 1:
                results = [error]
            else:
                # One of them is at fault, and the others shall not be told so.
                for one in batch:
                    self._answer([one], loop)
                return
        loop.call_soon_threadsafe(_hand_out, batch, results)

    def _together(self, batch: list[_Waiting]) -> Iterable[Arrays]:
        left = max(one.until for one in batch) - time.monotonic()
        if left <= 0:
            raise RequestError(504, "the answer takes too long (limits.answer_seconds)")
        rows = [one.rows for one in batch]
        self._note(sum(rows))
        if len(batch) == 1:
            return [self._signature(batch[0].inputs, left)]
        names = batch[0].inputs
        joined = {n: np.concatenate([one.inputs[n] for one in batch]) for n in names}
        outputs = self._signature(joined, left)
        if any(len(a) != sum(rows) for a in outputs.values()):
            raise ValueError("the outputs of this model are not one for each row")
        ends = np.cumsum(rows)
        return [
            {n: a[end - size : end] for n, a in outputs.items()}
            for end, size in zip(ends, rows, strict=True)
        ]


def _hand_out(batch: list[_Waiting], results: list[Arrays | Exception]) -> None:
    for one, result in zip(batch, results, strict=True):
        if one.answer.done():
            continue  # who asked has gone
        if isinstance(result, Exception):
            one.answer.set_exception(result)
        else:
            one.answer.set_result(result)
