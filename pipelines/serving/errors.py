"""Errors that are returned to clients."""

from __future__ import annotations


class RequestError(Exception):
    """A request that the server rejects or cannot answer.

    Attributes:
        status: The HTTP status: 400 for an invalid request, 404 for an unknown model, version or
            path; 408, 413, 429, 503 or 504 for an exceeded limit; 500 for an internal error.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
