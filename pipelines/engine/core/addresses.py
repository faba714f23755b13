"""Network addresses to listen on."""

from __future__ import annotations

import errno
import socket

from pipelines.engine.core.commands import option
from pipelines.engine.core.errors import UserError

_MAX_PORT = 65535


def listen(host: str, port: int, port_option: str = "port") -> socket.socket:
    """Return a listening socket.

    Args:
        host: The host's name or address.
        port: The port; 0 is any free one.
        port_option: The option that sets the port, for the error message.

    Raises:
        UserError: The address is unavailable.
    """
    place = f"cannot listen on {host}:{port}"
    if not 0 <= port <= _MAX_PORT:
        raise UserError(f"{place}: a port is a number from 0 to {_MAX_PORT}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{place}: {_reason(error, port_option)}") from None


def _reason(error: OSError | UnicodeError, port_option: str) -> str:
    local = f"{option('host', '127.0.0.1')} (this machine only) or {option('host', '0.0.0.0')}"
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"the host is unknown; use {local}"
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use; choose another: {option(port_option, 'N')}"
    if error.errno == errno.EACCES:
        return f"this port needs root; choose one from 1024: {option(port_option, 'N')}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"not an address of this machine; use {local}"
    return error.strerror or str(error)
