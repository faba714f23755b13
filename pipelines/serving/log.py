"""The server's log: one line of JSON for each event, on standard error.

Each line has ``time``, ``level`` and ``event``, then the fields of the event. Nothing that a client
sends is logged: a request is its model, version, status and duration.

A thread writes the lines, so that a slow reader of standard error cannot stop the server. When too
many wait, further ones are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from datetime import UTC, datetime
from typing import Any, NoReturn

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

#: Takes an event and its fields: ``LOGGER.info("request", model="sentiment", status=200)``.
LOGGER: FilteringBoundLogger = structlog.get_logger()

#: Most lines that wait to be written.
_MAX_WAITING = 10_000
#: Seconds for which lines are collected: writing each by itself would cost more than the event.
_COLLECT_SECONDS = 0.02
#: Seconds for the last lines to be written when the server stops.
_FLUSH_SECONDS = 2.0


class Writer:
    """Write lines to a file in a thread.

    Args:
        file: Number of the open file.

    Attributes:
        dropped: How many lines were not written.
    """

    def __init__(self, file: int) -> None:
        self.dropped = 0
        self._file = file
        self._waiting: deque[dict[str, Any]] = deque()
        self._wake = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: dict[str, Any]) -> None:
        """Write a line soon. Its ``time`` is in seconds."""
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(line)
        self._wake.set()

    def close(self) -> None:
        """Write what is waiting, and end the thread."""
        self._is_closed = True
        self._wake.set()
        self._thread.join(_FLUSH_SECONDS)

    def _run(self) -> None:
        reported = 0
        while self._waiting or not self._is_closed:
            self._wake.wait()
            if not self._is_closed:
                time.sleep(_COLLECT_SECONDS)
            self._wake.clear()
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if self.dropped > reported:
                count, reported = self.dropped - reported, self.dropped
                lines.append(_line("warning", "lines dropped", {"count": count}))
            if not self._write(b"".join(map(_render, lines))):
                self.dropped += len(lines)

    def _write(self, text: bytes) -> bool:
        while text:
            try:
                text = text[os.write(self._file, text) :]
            except BlockingIOError:  # another process has made the file non-blocking
                time.sleep(_COLLECT_SECONDS)
            except OSError:
                return False
        return True


_writer: Writer | None = None


def configure() -> None:
    """Write the log of this process to standard error, including the warnings of libraries."""
    global _writer
    _writer = Writer(sys.stderr.fileno())
    structlog.configure(
        processors=[_put],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(logging.WARNING)


def close() -> None:
    """Write the last lines, unless that takes too long."""
    if _writer is not None:
        _writer.close()


def dropped_lines() -> int:
    """Return how many lines were not written, because nobody read them."""
    return _writer.dropped if _writer is not None else 0


class _Handler(logging.Handler):
    """Log what libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        assert _writer is not None
        fields: EventDict = {"exc_info": record.exc_info}
        _writer.put(_line(record.levelname.lower(), record.getMessage(), fields))


def _put(_logger: WrappedLogger, level: str, fields: EventDict) -> NoReturn:
    assert _writer is not None
    _writer.put(_line(level, fields.pop("event"), fields))
    raise structlog.DropEvent


def _line(level: str, event: str, fields: EventDict) -> dict[str, Any]:
    """Put the common fields first, and replace an exception by its type and traceback."""
    exc_info = fields.pop("exc_info", None)
    line = {"time": time.time(), "level": level, "event": event, **fields}
    error = sys.exception() if exc_info is True else exc_info and exc_info[1]
    if error:
        # Not its message, which may quote what a client sent.
        line["error"] = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)
        line["at"] = [f"{f.filename}:{f.lineno} {f.name}" for f in frames]
    return line


def _render(line: dict[str, Any]) -> bytes:
    at = datetime.fromtimestamp(line["time"], UTC).isoformat(timespec="milliseconds")
    try:
        return orjson.dumps(line | {"time": at}, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # a file's name that is not Unicode
        return (
            orjson.dumps({name: ascii(value) for name, value in line.items()} | {"time": at})
            + b"\n"
        )
