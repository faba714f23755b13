"""The bodies of requests, limited in size and time, and in their size all together."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass

from aiohttp import web

from pipelines.serving import memory
from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError

_ENCODINGS = ("", "identity", "gzip", "deflate")
#: After a body of this size (bytes), memory is returned to the operating system some seconds later.
_LARGE, _TRIM_SECONDS = 1_000_000, 3.0


@dataclass(eq=False)
class _Arrival:
    """A body that is still arriving."""

    timer: asyncio.Timeout
    size: int = 0
    refusal: RequestError | None = None


class BodyReader:
    """Read bodies, and count their bytes until the requests are answered.

    When there are too many bytes, the largest body that is still arriving is refused rather than
    the next one, which is likely to be small: one slow client cannot lock out the others.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._held = 0
        self._arriving: dict[_Arrival, None] = {}
        self._trimming: asyncio.TimerHandle | None = None

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the body of a request, unpacked. `release` must follow.

        Raises:
            RequestError: The body is too long, too slow or damaged, or too much arrives at once.
        """
        if request.headers.get("Content-Encoding", "").lower() not in _ENCODINGS:
            raise RequestError(415, "the body's Content-Encoding is neither gzip nor deflate")
        if (request.content_length or 0) > self._limits.body_bytes:
            raise self._too_long()
        try:
            if not request.content.is_eof():
                return await self._receive(request)
            body = request.content.read_nowait()
        except (web.RequestPayloadError, zlib.error):
            raise RequestError(400, "the body is damaged") from None
        if len(body) > self._limits.body_bytes:
            raise self._too_long()
        self._hold(len(body))
        return body

    def release(self, size: int) -> None:
        """Count the bytes of a body no longer."""
        self._held -= size
        if size >= _LARGE and self._trimming is None:
            loop = asyncio.get_running_loop()
            self._trimming = loop.call_later(_TRIM_SECONDS, self._trim)

    def refuse_oldest(self, message: str) -> bool:
        """Refuse the body that has been arriving for longest; return whether there is one."""
        oldest = next(iter(self._arriving), None)
        if oldest is not None:
            self._refuse(oldest, message)
        return oldest is not None

    async def _receive(self, request: web.BaseRequest) -> bytes:
        if request.headers.get("Expect", "").lower() == "100-continue":
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunks: list[bytes] = []
        arrival = _Arrival(asyncio.timeout(self._limits.receive_seconds))
        self._arriving[arrival] = None
        try:
            async with arrival.timer:
                while not request.content.at_eof():
                    chunks.append(await request.content.readany())
                    self._hold(len(chunks[-1]), arrival)
                    if arrival.size > self._limits.body_bytes:
                        raise self._too_long()
        except TimeoutError:
            self.release(arrival.size)
            raise arrival.refusal or RequestError(
                408, "the body did not arrive in time (limits.receive_seconds)"
            ) from None
        except BaseException:
            self.release(arrival.size)
            raise
        finally:
            self._arriving.pop(arrival, None)
        return b"".join(chunks)

    def _hold(self, size: int, arrival: _Arrival | None = None) -> None:
        self._held += size
        if arrival is not None:
            arrival.size += size
        if self._held > self._limits.inflight_bytes:
            message = "too many bytes in requests at the same time (limits.inflight_bytes)"
            if self._arriving:
                self._refuse(max(self._arriving, key=lambda other: other.size), message)
            elif arrival is None:
                self._held -= size
                raise RequestError(503, message)
        if arrival is not None and arrival.refusal is not None:
            raise arrival.refusal

    def _refuse(self, arrival: _Arrival, message: str) -> None:
        """Stop waiting for the rest of a body; its bytes no longer count."""
        del self._arriving[arrival]
        arrival.refusal = RequestError(503, message)
        arrival.timer.reschedule(0)
        self.release(arrival.size)
        arrival.size = 0

    def _too_long(self) -> RequestError:
        limit = self._limits.body_bytes
        return RequestError(413, f"the body is longer than {limit} bytes (limits.body_bytes)")

    def _trim(self) -> None:
        self._trimming = None
        asyncio.get_running_loop().run_in_executor(None, memory.trim)
