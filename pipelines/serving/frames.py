"""A limit on the frames of a WebSocket that bring no message."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp.http import WebSocketReader

#: Most such frames in one second.
MAX_FRAMES = 100

_FINAL, _CONTROL, _MASKED = 0x80, 0x08, 0x80
#: Bytes of a frame's length, by the 7 bits before it, and of the mask.
_LENGTH_BYTES, _MASK_BYTES = {126: 2, 127: 8}, 4


class FrameLimiter:
    """Pass the bytes of a WebSocket on, as long as most of its frames bring messages.

    Pings, pongs and fragments cost the server as much as a message, but nothing bounds their
    number: a message is read when the one before is answered.

    Args:
        reader: Parses the frames.
        exceeded: Called once there are too many; what comes then is dropped.
    """

    def __init__(self, reader: WebSocketReader, exceeded: Callable[[], None]) -> None:
        self._reader, self._exceeded = reader, exceeded
        self._has_ended = False
        self._count, self._counted_since = 0, 0.0
        self._header = bytearray()  # of a frame that is not complete
        self._skip = 0  # bytes of the current frame that are still to come

    def feed_eof(self) -> None:
        """Pass the end on."""
        self._reader.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass data on; return whether the stream has ended, and what was not read."""
        if not self._has_ended and self._is_within(data):
            ended, tail = self._reader.feed_data(data)
            return bool(ended), bytes(tail)
        if not self._has_ended:
            self._has_ended = True
            self._exceeded()
        return False, b""

    def _is_within(self, data: bytes) -> bool:
        """Count the frames that begin in the data."""
        now = time.monotonic()
        if now - self._counted_since >= 1:
            self._count, self._counted_since = 0, now
        place = 0
        while place < len(data):
            if self._skip:
                step = min(self._skip, len(data) - place)
                self._skip -= step
                place += step
                continue
            self._header.append(data[place])
            place += 1
            if (size := _payload_size(self._header)) is not None:
                first = self._header[0]
                self._count += bool(first & _CONTROL) or not first & _FINAL
                self._skip = size
                self._header.clear()
                if self._count > MAX_FRAMES:
                    return False
        return True


def _payload_size(header: bytearray) -> int | None:
    """Return the size of the mask and payload of a frame; None if the header is not complete."""
    if len(header) < 2:
        return None
    short = header[1] & 0x7F
    count = _LENGTH_BYTES.get(short, 0)
    if len(header) < 2 + count:
        return None
    size = int.from_bytes(header[2 : 2 + count]) if count else short
    return size + (_MASK_BYTES if header[1] & _MASKED else 0)
