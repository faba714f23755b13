"""What requests for predictions have in common, whichever way they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from pipelines.serving.config import ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import Arrays
from pipelines.serving.metrics import LOGGER, Metrics, log
from pipelines.serving.repository import Repository
from pipelines.serving.servable import Servable, Signature

#: What is larger (bytes) is not read or written at once: it would hold others up.
_SMALL = 65_536

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Call:
    """Which version of which model is asked; the newest one if there is no number."""

    name: str = ""
    number: int | None = None


class Handler:
    """Answers requests for predictions, within the limits."""

    def __init__(self, library: Repository, config: ServingConfig, metrics: Metrics) -> None:
        self._library, self._config, self._metrics = library, config, metrics
        self._active = 0

    async def __call__(self, call: Call, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work of a request, counted and told in the log.

        Args:
            call: may be filled in by the work.

        Raises:
            RequestError: what is wrong with the request, or which limit it meets; 500 for
                whatever else goes wrong.
        """
        started = time.perf_counter()
        status = 0  # and so it stays where who asked has gone
        try:
            answer = await self._admitted(work)
            status = 200
            return answer
        except RequestError as error:
            status = error.status
            raise
        except Exception:  # noqa: BLE001 - the client learns that it failed, the log where
            status = 500
            LOGGER.exception("request failed", extra={"fields": {"model": self._known(call)}})
            raise RequestError(status, "internal error") from None
        finally:
            if status:
                self._tell(call, status, time.perf_counter() - started)

    async def ask(
        self,
        call: Call,
        size: int,
        read: Callable[[Servable], tuple[str, Arrays, Callable[[Arrays], T]]],
        seconds: float | None = None,
    ) -> T:
        """Put a question to a model.

        Args:
            size: of what is read, in bytes.
            read: gives the signature, its inputs, and what makes an answer of the outputs.
            seconds: that the client waits for the answer; the limit holds too.

        Raises:
            RequestError: there is no such version, or it gives no answer in time.
        """
        most = self._config.limits.answer_seconds
        version = self._library.find(call.name, call.number)
        with version.used() as servable:
            signature, inputs, write = await beside(size, read, servable)
            outputs = await version.batchers[signature](inputs, min(most, seconds or most))
            return await beside(sum(a.nbytes for a in outputs.values()), write, outputs)

    async def _admitted(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._active >= self._config.limits.concurrent:
            raise RequestError(429, "too many requests at the same time (limits.concurrent)")
        self._active += 1
        self._metrics.in_progress.inc()
        try:
            return await work()
        finally:
            self._active -= 1
            self._metrics.in_progress.dec()

    def _tell(self, call: Call, status: int, seconds: float) -> None:
        known = self._known(call)
        self._metrics.requests.labels(known, str(status)).inc()
        self._metrics.seconds.labels(known).observe(seconds)
        if self._config.log_requests:
            ms = round(seconds * 1e3, 2)
            log("request", model=known, version=call.number, status=status, ms=ms)

    def _known(self, call: Call) -> str:
        return call.name if call.name in self._library.names else ""


async def beside(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function with ``size`` bytes to go through, in a thread if those are many."""
    if size <= _SMALL:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


def signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """Raises: RequestError (400) if there is none of that name."""
    if name not in signatures:
        raise RequestError(400, f'Serving signature name: "{name}" not found in signature def')
    return signatures[name]
