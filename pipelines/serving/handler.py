"""The handling of prediction requests that REST and gRPC share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from pipelines.serving.config import ServingConfig
from pipelines.serving.errors import FAILED_PRECONDITION, RequestError, out_of_memory, shorten
from pipelines.serving.json_codec import DEFAULT_SIGNATURE, Arrays
from pipelines.serving.log import LOGGER
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository
from pipelines.serving.servable import Servable, Signature

#: Messages above this size (bytes) are processed in a thread, to keep the event loop responsive.
_MAX_INLINE_BYTES = 65_536

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class ModelSpec:
    """The model that a request names, and the number or label of a version; None is the newest."""

    name: str = ""
    version: int | None = None
    label: str | None = None


class Handler:
    """Handle prediction requests within the limits of the config."""

    def __init__(self, repository: Repository, config: ServingConfig, metrics: Metrics) -> None:
        self._repository, self._config, self._metrics = repository, config, metrics
        self._active = 0
        metrics.in_progress.set_function(lambda: self._active)

    async def handle(self, model: ModelSpec, respond: Callable[[], Awaitable[T]]) -> T:
        """Handle a request: count it, log it and limit how many run at once.

        Args:
            model: The requested model; ``respond`` may fill it in.
            respond: Reads the request and returns the response.

        Raises:
            RequestError: The request is invalid or exceeds a limit; with status 500 for any other
                failure.
        """
        started = time.perf_counter()
        status = 0  # stays 0 if the client leaves, whose request is not recorded
        try:
            response = await self._within_limit(respond)
            status = 200
            return response
        except RequestError as error:
            status = error.status
            raise
        except MemoryError:
            no_memory = out_of_memory()
            status = no_memory.status
            raise no_memory from None
        except Exception:  # noqa: BLE001 - the log has the details; the client gets status 500
            status = 500
            LOGGER.exception("request failed", model=self._known_name(model))
            raise RequestError(status, "internal error") from None
        finally:
            if status:
                self._record(model, status, time.perf_counter() - started)

    async def predict(
        self,
        model: ModelSpec,
        size: int,
        decode: Callable[[Servable], tuple[str, Arrays, Callable[[Arrays], T]]],
        seconds: float | None = None,
    ) -> T:
        """Run a model and return its encoded outputs.

        Args:
            model: The model to run.
            size: Size of the request in bytes.
            decode: Returns the signature's name, its inputs, and a function that encodes outputs.
            seconds: How long the client waits; ``limits.answer_seconds`` applies too.

        Raises:
            RequestError: The version is not served, the request is invalid, or the outputs take
                too long.
        """
        limit = self._config.limits.answer_seconds
        version = self._repository.find(model.name, model.version, model.label)
        with version.in_use() as servable:
            signature, inputs, encode = await run_sized(size, decode, servable)
            outputs = await version.batchers[signature](inputs, min(limit, seconds or limit))
            if version.drift is not None and signature == DEFAULT_SIGNATURE:
                version.drift.add(await run_sized(size, version.drift.bins, inputs, outputs))
            return await run_sized(sum(a.nbytes for a in outputs.values()), encode, outputs)

    async def _within_limit(self, respond: Callable[[], Awaitable[T]]) -> T:
        if self._active >= self._config.limits.concurrent:
            raise RequestError(429, "too many requests at the same time (limits.concurrent)")
        self._active += 1
        try:
            return await respond()
        finally:
            self._active -= 1

    def _record(self, model: ModelSpec, status: int, seconds: float) -> None:
        name = self._known_name(model)
        self._metrics.record(name, status, seconds)
        if self._config.log_requests:
            ms = round(seconds * 1e3, 2)
            LOGGER.info("request", model=name, version=model.version, status=status, ms=ms)

    def _known_name(self, model: ModelSpec) -> str:
        """Return the model's name, or nothing if the client made it up."""
        return model.name if model.name in self._repository.names else ""


async def run_sized(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that processes ``size`` bytes; in a thread if that would take long."""
    if size <= _MAX_INLINE_BYTES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


def get_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """Return a signature by name.

    Raises:
        RequestError: With status 400 if there is no such signature.
    """
    if name not in signatures:
        raise RequestError(
            400,
            f'Serving signature name: "{shorten(name)}" not found in signature def',
            FAILED_PRECONDITION,
        )
    return signatures[name]
