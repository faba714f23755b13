"""The keys of a server."""

from __future__ import annotations

from pydantic import Field

from pipelines.engine.config.schema import BaseConfig


class BatchingConfig(BaseConfig):
    """Requests that come at the same time are answered together."""

    #: Rows of one call of the model, at most; 1 answers each request by itself.
    max_rows: int = Field(32, ge=1)
    #: After a batch of several requests, wait so long for more of them (milliseconds).
    window_ms: float = Field(1.0, ge=0, le=1000)


class InputLimitsConfig(BaseConfig):
    """The largest value of an input of that name: what decides how much work a row is.

    Only requests that agree in them are answered together.
    """

    beam_width: int = Field(16, ge=1)
    max_length: int = Field(1_000, ge=0)
    paths: int = Field(1_000, ge=1)


class LimitsConfig(BaseConfig):
    """What a request may ask for. Beyond it is an error with the name of the key."""

    #: Bytes of a request's body (413).
    body_bytes: int = Field(16_000_000, ge=1)
    #: Rows of one request (400).
    rows: int = Field(256, ge=1)
    #: Bytes of one text or picture (400).
    text_bytes: int = Field(8_000_000, ge=1)
    #: Entries along any other dimension, such as the steps of a series (400).
    steps: int = Field(10_000, ge=1)
    most: InputLimitsConfig = InputLimitsConfig()
    #: Requests that are being answered or wait for it (429).
    concurrent: int = Field(256, ge=1)
    #: Open connections (503).
    connections: int = Field(1_000, ge=1)
    #: Seconds for a request's headers and for its body to arrive (408).
    receive_seconds: float = Field(30.0, gt=0)
    #: Seconds for an answer (504).
    answer_seconds: float = Field(60.0, gt=0)


class StreamsConfig(BaseConfig):
    """Connections whose state the server keeps."""

    #: Open at the same time (429).
    concurrent: int = Field(100, ge=1)
    #: Seconds without a message after which one is closed (1008).
    idle_seconds: float = Field(300.0, gt=0)
    #: Bytes of one message (1009).
    message_bytes: int = Field(1_000_000, ge=1)
    #: Bytes of what is kept for one (1008): it grows with a word that does not end.
    state_bytes: int = Field(1_000_000, ge=1)


class ServingConfig(BaseConfig):
    """Where to listen, what to serve and how much of it."""

    host: str = "127.0.0.1"
    port: int = Field(8501, ge=0, le=65535)
    #: Where gRPC is spoken too; nowhere if None.
    grpc_port: int | None = Field(None, ge=0, le=65535)
    #: Newest versions of a model that are served side by side.
    versions: int = Field(1, ge=1)
    #: Seconds between two looks for new versions.
    poll_seconds: float = Field(2.0, gt=0)
    #: Calls of models that run at the same time.
    workers: int = Field(2, ge=1)
    #: A line in the log for every request.
    log_requests: bool = True
    batching: BatchingConfig = BatchingConfig()
    limits: LimitsConfig = LimitsConfig()
    streams: StreamsConfig = StreamsConfig()
