"""The config of the server.

The table in ``docs/serving.md`` is generated from the docstrings (``make reference``).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from pipelines.engine.config.schema import BaseConfig, CoercedStr
from pipelines.serving.hosts import host_name


class BatchingConfig(BaseConfig):
    """How requests that arrive together are batched."""

    max_rows: int = Field(32, ge=1)
    """Most rows in one call of the model; 1 turns batching off."""
    window_ms: float = Field(1.0, ge=0, le=1000)
    """Milliseconds to wait for more requests after a batch of several."""


class InputLimitsConfig(BaseConfig):
    """Limits for inputs that decide how much work a row is.

    Only requests with equal values share a batch.
    """

    beam_width: int = Field(16, ge=1)
    """Largest value of the input ``beam_width`` (400)."""
    max_length: int = Field(1_000, ge=0)
    """Largest value of the input ``max_length`` (400)."""
    paths: int = Field(1_000, ge=1)
    """Largest value of the input ``paths`` (400)."""


class LimitsConfig(BaseConfig):
    """Limits for requests. The error for exceeding one names its key."""

    body_bytes: int = Field(16_000_000, ge=1)
    """Bytes in a request's body, unpacked if it is compressed (413)."""
    inflight_bytes: int = Field(64_000_000, ge=1)
    """Bytes in the bodies of all requests that are being received or answered (503). Above it, the
    largest incomplete body is refused."""
    rows: int = Field(256, ge=1)
    """Rows in one request (400)."""
    text_bytes: int = Field(8_000_000, ge=1)
    """Bytes in one text or image (400)."""
    steps: int = Field(10_000, ge=1)
    """Entries along any other dimension, such as the steps of a series (400)."""
    most: InputLimitsConfig = InputLimitsConfig()
    concurrent: int = Field(256, ge=1)
    """Requests waiting or being answered (429)."""
    connections: int = Field(1_000, ge=1)
    """Open connections, including streams. At the limit, connections without a request are
    closed first, then the oldest incomplete body is refused (503)."""
    receive_seconds: float = Field(30.0, gt=0)
    """Seconds for a request's headers and for its body to arrive (408), and for a client to read
    the last response before its connection closes."""
    answer_seconds: float = Field(60.0, gt=0)
    """Seconds for an answer (504); the model's work is then cancelled."""


class StreamsConfig(BaseConfig):
    """Limits for streams: connections whose recurrent state the server keeps."""

    concurrent: int = Field(100, ge=1)
    """Streams open at the same time (429)."""
    idle_seconds: float = Field(300.0, gt=0)
    """Seconds without a message after which a stream is closed (1008)."""
    message_bytes: int = Field(1_000_000, ge=1)
    """Bytes in one message (1009)."""
    state_bytes: int = Field(1_000_000, ge=1)
    """Bytes in the state of one stream (1008); it grows with a word that does not end."""


class DriftConfig(BaseConfig):
    """How requests are compared with the data that a model was trained on."""

    window: int = Field(1_000, ge=0)
    """Latest requests of a model that are compared; 0 turns it off."""


class ServingConfig(BaseConfig):
    """Addresses, models and limits of the server."""

    host: str = "127.0.0.1"
    """Address to listen on: by default this machine only. Before using ``0.0.0.0``, every network
    of the machine, put a proxy with TLS and passwords in front."""
    allowed_hosts: list[str] = Field([])
    """Host names under which clients may reach the server (403), and whose web pages may send
    requests (``Origin``). Loopback names are always allowed. If empty, a server that does not
    listen on a loopback address accepts any host."""
    port: int = Field(8501, ge=0, le=65535)
    """Port for HTTP; 0 is any free one."""
    grpc_port: int | None = Field(None, ge=0, le=65535)
    """Port for gRPC; ``null`` turns gRPC off."""
    versions: int = Field(1, ge=1)
    """How many of a model's newest versions to serve."""
    labels: dict[CoercedStr, dict[CoercedStr, Annotated[int, Field(ge=0)]]] = Field({})
    """Names of versions, for each model, e.g. ``{sentiment: {stable: 3, canary: 4}}``; these
    versions are served too."""
    poll_seconds: float = Field(2.0, gt=0)
    """Seconds between two checks for new versions."""
    workers: int = Field(2, ge=1)
    """Calls of models that run at the same time; each uses its share of the cores."""
    log_requests: bool = True
    """Log a line for every request."""
    batching: BatchingConfig = BatchingConfig()
    limits: LimitsConfig = LimitsConfig()
    streams: StreamsConfig = StreamsConfig()
    drift: DriftConfig = DriftConfig()

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, names: list[str]) -> list[str]:
        for name in names:
            if host_name(name) != name.lower().strip("[]"):
                raise ValueError(
                    "must be names without scheme and port, e.g. models.example.org or "
                    f"[2001:db8::1], and {name!r} is not"
                )
        return names
