"""The bodies of requests, limited in size, in time and in their total size."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, field

from aiohttp import web

from pipelines.serving import memory
from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError

#: For zlib: gzip or zlib's format, whichever the body has.
_ANY_FORMAT = zlib.MAX_WBITS | 32
#: After so many bytes, memory is returned to the operating system some seconds later.
_TRIM_BYTES, _TRIM_SECONDS = 32_000_000, 5.0


@dataclass(eq=False)
class _Arrival:
    """A body that is still arriving."""

    timer: asyncio.Timeout
    data: bytearray = field(default_factory=bytearray)
    refusal: RequestError | None = None


class BodyReader:
    """Read bodies, and count their bytes until the requests are answered.

    When there are too many bytes, the largest body that is still arriving is refused rather than
    the next one, which is likely to be small: one slow client cannot lock out the others.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._held = self._received = 0
        self._trimming: asyncio.TimerHandle | None = None
        self._arriving: dict[_Arrival, None] = {}

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the body of a request, unpacked. `release` must follow.

        Raises:
            RequestError: The body is too long, too slow or damaged, or too much arrives at once.
        """
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "deflate"):
            raise RequestError(415, "the body's Content-Encoding is neither gzip nor deflate")
        if (request.content_length or 0) > self._limits.body_bytes:
            raise self._too_long()
        if request.content.is_eof():
            body = request.content.read_nowait()
            self._hold(len(body))
        else:
            body = await self._receive(request)
        if len(body) > self._limits.body_bytes:
            self.release(len(body))
            raise self._too_long()
        return body if encoding == "identity" else await self._unpack(body)

    def release(self, size: int) -> None:
        """Count the bytes of a body no longer."""
        self._held -= size
        self._received += size
        if self._received >= _TRIM_BYTES and self._trimming is None:
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
        arrival = _Arrival(asyncio.timeout(self._limits.receive_seconds))
        self._arriving[arrival] = None
        is_complete = False
        try:
            async with arrival.timer:
                while not request.content.at_eof():
                    chunk = await request.content.readany()
                    arrival.data += chunk
                    self._hold(len(chunk), arrival)
                    if len(arrival.data) > self._limits.body_bytes:
                        raise self._too_long()
            is_complete = True
        except TimeoutError:
            raise arrival.refusal or RequestError(
                408, "the body did not arrive in time (limits.receive_seconds)"
            ) from None
        except web.RequestPayloadError:
            raise RequestError(400, "the body is damaged") from None
        finally:
            self._arriving.pop(arrival, None)
            if not is_complete:
                self.release(len(arrival.data))
        return bytes(arrival.data)

    async def _unpack(self, packed: bytes) -> bytes:
        unpacker = zlib.decompressobj(_ANY_FORMAT)
        limit = self._limits.body_bytes
        try:
            # In a thread, since a few bytes can become many.
            body = await asyncio.to_thread(unpacker.decompress, packed, limit + 1)
        except zlib.error:
            raise RequestError(400, "the body is damaged") from None
        finally:
            self.release(len(packed))
        if len(body) > limit:
            raise self._too_long()
        if not unpacker.eof or unpacker.unused_data:
            raise RequestError(400, "the body is damaged")
        self._hold(len(body))
        return body

    def _hold(self, size: int, arrival: _Arrival | None = None) -> None:
        self._held += size
        if self._held > self._limits.inflight_bytes:
            message = "too many bytes in requests at the same time (limits.inflight_bytes)"
            if self._arriving:
                self._refuse(max(self._arriving, key=lambda other: len(other.data)), message)
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
        self.release(len(arrival.data))
        arrival.data = bytearray()

    def _too_long(self) -> RequestError:
        limit = self._limits.body_bytes
        return RequestError(413, f"the body is longer than {limit} bytes (limits.body_bytes)")

    def _trim(self) -> None:
        self._received, self._trimming = 0, None
        asyncio.get_running_loop().run_in_executor(None, memory.trim)
