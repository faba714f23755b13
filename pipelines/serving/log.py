"""The server's log: one line of JSON for each event, on standard error.

Each line has ``time``, ``level`` and ``event``, then the fields of the event. Nothing that a client
sends is logged: a request is its model, version, status and duration.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

#: Takes an event and its fields: ``LOGGER.info("request", model="sentiment", status=200)``.
LOGGER: FilteringBoundLogger = structlog.get_logger()


def configure() -> None:
    """Write the log of this process to standard error, including the warnings of libraries."""
    render = structlog.processors.JSONRenderer(ensure_ascii=False)
    # The server's own events skip the logging module, which would take twice as long.
    structlog.configure(
        processors=[_to_line, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _to_line,
                render,
            ]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def _to_line(_logger: WrappedLogger, level: str, fields: EventDict) -> EventDict:
    """Put the common fields first, and replace an exception by its type and traceback."""
    exc_info = fields.pop("exc_info", None)
    line: EventDict = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "event": fields.pop("event"),
        **fields,
    }
    error = sys.exception() if exc_info is True else exc_info and exc_info[1]
    if error:
        # Not its message, which may quote what a client sent.
        line["error"] = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)
        line["at"] = [f"{f.filename}:{f.lineno} {f.name}" for f in frames]
    return line
