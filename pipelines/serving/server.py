"""A server process, from start to shutdown."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import socket
from collections.abc import Sequence

import tensorflow as tf
import uvicorn

from pipelines.engine.core.addresses import listen
from pipelines.engine.core.commands import command
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.paths import HOME_VARIABLE, home
from pipelines.serving import http_protocol, log
from pipelines.serving.config import ServingConfig
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository
from pipelines.serving.rest import create_app


def run(names: Sequence[str], config: ServingConfig) -> None:
    """Serve the models in ``exports/`` until the process receives SIGINT or SIGTERM.

    Args:
        names: The models to serve, which have exports; if empty, all.
        config: The server's config.

    Raises:
        UserError: There are no exports, an address is unavailable, or gRPC is not installed.
    """
    root = home() / "exports"
    if not any(root.glob("[!.]*/[0-9]*/saved_model.pb")):
        raise UserError(
            f"no exports in {root}: make one, e.g. {command('export', 'sentiment')}, "
            f"or set {HOME_VARIABLE} to the folder that has exports/"
        )
    listener = listen(config.host, config.port)
    grpc_address = (
        None if config.grpc_port is None else _grpc_address(config.host, config.grpc_port)
    )
    log.configure()
    gc.freeze()  # collecting the garbage of a closed model then takes a shorter pause
    tf.get_logger().setLevel("ERROR")  # its session-based loader warns that it is deprecated
    metrics = Metrics()
    app = create_app(Repository(root, names, config, metrics), config, metrics, grpc_address)
    host, port = listener.getsockname()[:2]
    log.LOGGER.info("listening", address=f"http://{_address(host, port)}", exports=str(root))
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


def _grpc_address(host: str, port: int) -> str:
    """Return the address for gRPC, after checking that it is free.

    gRPC does not accept an open socket, and its own error would not name the cause.
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise UserError(
            "gRPC needs TensorFlow Serving's messages: "
            "pip install --no-deps 'tensorflow-serving-api>=2.21,<2.22'"
        )
    with listen(host, port, "grpc-port") as free:
        return _address(free.getsockname()[0], port)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
