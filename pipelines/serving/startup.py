"""What a server needs before it starts, checked before TensorFlow is imported."""

from __future__ import annotations

import importlib.util
import socket
from dataclasses import dataclass
from pathlib import Path

from pipelines.engine.core.addresses import listen
from pipelines.engine.core.commands import command
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.paths import HOME_VARIABLE, home
from pipelines.serving.config import ServingConfig


@dataclass(frozen=True)
class Addresses:
    """Where a server listens.

    Attributes:
        http: The open socket.
        grpc: ``HOST:PORT``, which was free; None without gRPC.
    """

    http: socket.socket
    grpc: str | None


def exports_folder() -> Path:
    """Return the folder with an export of each model."""
    return home() / "exports"


def exported_models() -> list[str]:
    """Return the models of which there is an export.

    Raises:
        UserError: There is none.
    """
    root = exports_folder()
    found = {path.parents[1].name for path in root.glob("[!.]*/[0-9]*/saved_model.pb")}
    if not found:
        raise UserError(
            f"no exports in {root}: make one, e.g. {command('export', 'sentiment')}, "
            f"or set {HOME_VARIABLE} to the folder that has exports/"
        )
    return sorted(found)


def open_addresses(config: ServingConfig) -> Addresses:
    """Listen for HTTP, and see that the address for gRPC is free.

    Raises:
        UserError: An address is unavailable, or gRPC is not installed.
    """
    http = listen(config.host, config.port)
    if config.grpc_port is None:
        return Addresses(http, None)
    return Addresses(http, _grpc_address(config.host, config.grpc_port))


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
        return written(free.getsockname()[0], port)


def written(host: str, port: int) -> str:
    """Return ``HOST:PORT`` as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
