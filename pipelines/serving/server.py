"""A server process, from its start to its end."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import socket
from collections.abc import Sequence

import tensorflow as tf
import uvicorn

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.paths import home
from pipelines.serving.config import ServingConfig
from pipelines.serving.http_protocol import protocol, stream_protocol
from pipelines.serving.metrics import Metrics, log, log_as_json
from pipelines.serving.repository import Repository
from pipelines.serving.rest import create


def run(names: Sequence[str], config: ServingConfig) -> None:
    """Serve the models of ``exports/`` until the process is told to end.

    Args:
        names: of the models; all there are, if empty.

    Raises:
        UserError: there is nothing to serve, an address cannot be listened to, or what gRPC needs
            is not installed.
    """
    root = home() / "exports"
    for name in names:
        if "/" in name or not any((root / name).glob("[0-9]*/saved_model.pb")):
            raise UserError(f"no export of {name!r} in {root}: make export-{name}")
    if not any(root.glob("[!.]*/[0-9]*/saved_model.pb")):
        raise UserError(f"no exports in {root} yet: make export-TASK")
    listening = _listen(config.host, config.port)
    rpc_address = None if config.grpc_port is None else _rpc_address(config.host, config.grpc_port)
    log_as_json()
    gc.freeze()  # what is there now stays: collecting what a model leaves is then a short pause
    tf.get_logger().setLevel("ERROR")  # its loader tells everybody of its other loader
    metrics = Metrics()
    app = create(Repository(root, names, config, metrics), config, metrics, rpc_address)
    host, port = listening.getsockname()[:2]
    log("listening", address=f"http://{_address(host, port)}", exports=str(root))
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=60,
            http=protocol(config.limits),
            ws=stream_protocol(config.limits),
            ws_max_size=config.streams.message_bytes,
            timeout_graceful_shutdown=int(config.limits.answer_seconds) + 1,
        )
    )
    server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Once it ends, nothing more is taken over gRPC either, while what was taken is answered."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        stop = getattr(self.config.app.state, "stop_rpc", None)  # type: ignore[union-attr]
        async with asyncio.TaskGroup() as both:
            if stop is not None:
                both.create_task(stop())
            await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _rpc_address(host: str, port: int) -> str:
    """Where gRPC can listen: it takes no socket that is there, and says little if it fails."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise UserError(
            "gRPC needs TensorFlow Serving's messages: "
            "pip install --no-deps 'tensorflow-serving-api>=2.21,<2.22'"
        )
    with _listen(host, port) as free:
        return _address(free.getsockname()[0], port)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
