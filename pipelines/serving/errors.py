"""What a client is told when there is no answer."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is not answered, with its HTTP status.

    Attributes:
        status: 400 for what is wrong with it, 404 for what there is not, 408, 413, 429, 503 or
            504 for a limit.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
