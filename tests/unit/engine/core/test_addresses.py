"""An address that cannot be listened on is one line with the cause and the remedy."""

import errno
import os
import socket

import pytest

from pipelines.engine.core.addresses import listen
from pipelines.engine.core.errors import UserError


def test_free_port():
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0


def test_port_in_use():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: .*in use.*--grpc-port N"):
            listen("127.0.0.1", port, "grpc-port")


def test_port_that_needs_root(monkeypatch):
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(UserError, match=r"127.0.0.1:80: .*needs root.*--port N"):
        listen("127.0.0.1", 80)


def test_host_of_another_machine():
    with pytest.raises(UserError, match=r"192.0.2.1:8501: not an address of this machine.*--host"):
        listen("192.0.2.1", 8501)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_unknown_host(host):
    with pytest.raises(UserError, match=f"{host}:8501: the host is unknown.*--host"):
        listen(host, 8501)


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range(port):
    with pytest.raises(UserError, match="from 0 to 65535"):
        listen("127.0.0.1", port)
