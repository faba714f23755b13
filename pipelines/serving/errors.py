"""Errors that are returned to clients."""

from __future__ import annotations

import re

#: gRPC's names of the kinds of errors, by HTTP status; any other is ``INTERNAL``.
GRPC_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
#: gRPC's numbers of the kinds of errors that have no HTTP status of their own.
RESOURCE_EXHAUSTED, FAILED_PRECONDITION = 8, 9
#: Characters of a name in an error: a client can send a name of megabytes.
_MAX_NAME = 100
#: An absolute path of a file or folder.
_PATH = re.compile(r"(?<![\w./-])/(?!job:|device:)(?:[^\s/:;,'\"()\[\]{}]+/)*[^\s/:;,'\"()\[\]{}]+")


class RequestError(Exception):
    """A request that the server rejects or cannot answer.

    Attributes:
        status: The HTTP status: 400 for an invalid request, 404 for an unknown model, version or
            path; 408, 413, 429, 503 or 504 for an exceeded limit; 500 for an internal error.
        grpc_code: gRPC's number of the kind of error; None if it follows from ``status``.
    """

    def __init__(self, status: int, message: str, grpc_code: int | None = None) -> None:
        super().__init__(message)
        self.status, self.grpc_code = status, grpc_code


def out_of_memory() -> RequestError:
    """Return the error for a request that needs more memory than there is."""
    return RequestError(503, "not enough memory for this request", RESOURCE_EXHAUSTED)


def shorten(name: str) -> str:
    """Return a name that a client sent, as an error repeats it."""
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…"


def hide_paths(message: str) -> str:
    """Return a message of TensorFlow without the server's paths."""
    return _PATH.sub("…", message)
