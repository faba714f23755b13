"""A server process, from start to shutdown."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Sequence

import tensorflow as tf
import uvicorn

from pipelines.serving import http_protocol, log
from pipelines.serving.config import ServingConfig
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository
from pipelines.serving.rest import create_app
from pipelines.serving.startup import Addresses, exports_folder, written


def run(names: Sequence[str], config: ServingConfig, addresses: Addresses) -> None:
    """Serve the models in ``exports/`` until the process receives SIGINT or SIGTERM.

    Args:
        names: The models to serve, which have exports; if empty, all.
        config: The server's config.
        addresses: Where the server listens.
    """
    root, listener = exports_folder(), addresses.http
    log.configure()
    gc.freeze()  # collecting the garbage of a closed model then takes a shorter pause
    tf.get_logger().setLevel("ERROR")  # its session-based loader warns that it is deprecated
    metrics = Metrics()
    app = create_app(Repository(root, names, config, metrics), config, metrics, addresses.grpc)
    host, port = listener.getsockname()[:2]
    log.LOGGER.info("listening", address=f"http://{written(host, port)}", exports=str(root))
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=60,
            http=http_protocol.limited_http(config.limits),
            ws=http_protocol.limited_websocket(config.limits),
            ws_max_size=config.streams.message_bytes,
            timeout_graceful_shutdown=int(config.limits.answer_seconds) + 1,
        )
    )
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Shut down HTTP and gRPC together: both stop accepting and finish requests in flight."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        stop_grpc = getattr(self.config.app.state, "stop_grpc", None)  # type: ignore[union-attr]
        async with asyncio.TaskGroup() as group:
            if stop_grpc is not None:
                group.create_task(stop_grpc())
            await super().shutdown(sockets)
