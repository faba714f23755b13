"""Clients that try to stall a server or to use up its memory, from one process on this machine.

    python -m benchmarks.attacks PORT            # until it is stopped
    python -m benchmarks.attacks PORT url pings  # only these

`benchmarks.serve_load --attacks` runs it beside honest clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import resource
import sys
from collections.abc import Callable, Coroutine
from typing import Any

#: Connections that each attack has at a time, and seconds between two of its attempts.
TOGETHER, PAUSE = 4, 0.2
#: Bytes after which an attack that is not refused begins anew, and seconds for which one holds on.
MOST, HOLD = 200_000_000, 30.0
PREDICT = "/v1/models/sentiment:predict"
BLOCK = 65_536
PING = b"\x89\x80\0\0\0\0"
HANDSHAKE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)

Writer = asyncio.StreamWriter


def head(method: str, path: str, fields: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}".encode()


async def endless(writer: Writer, start: bytes, block: bytes) -> None:
    """Send the same bytes again and again, as fast as the server takes them."""
    writer.write(start)
    for _ in range(MOST // len(block)):
        writer.write(block)
        await writer.drain()


async def headers(writer: Writer) -> None:
    await endless(writer, head("GET", "/healthz"), b"X-Header: " + b"a" * 4000 + b"\r\n")


async def url(writer: Writer) -> None:
    await endless(writer, b"GET /", b"a" * BLOCK)


async def trailers(writer: Writer) -> None:
    chunked = head("POST", PREDICT, "Transfer-Encoding: chunked\r\n\r\n") + b"1\r\n{\r\n0\r\n"
    await endless(writer, chunked, b"X-Trailer: " + b"a" * 4000 + b"\r\n")


async def pings(writer: Writer) -> None:
    await endless(writer, head("GET", "/v1/models/live:stream", HANDSHAKE) + b"\r\n", PING * 1000)


async def fragments(writer: Writer) -> None:
    start = head("GET", "/v1/models/live:stream", HANDSHAKE) + b"\r\n\x01\x80\0\0\0\0"
    await endless(writer, start, b"\x00\x80\0\0\0\0" * 1000)


async def bodies(writer: Writer) -> None:
    writer.write(head("POST", PREDICT, "Content-Length: 16000000\r\n\r\n"))
    await endless_until(writer, b"[" * BLOCK, 15_900_000)
    await asyncio.sleep(HOLD)


async def endless_until(writer: Writer, block: bytes, size: int) -> None:
    for _ in range(size // len(block)):
        writer.write(block)
        await writer.drain()


async def methods(writer: Writer) -> None:
    writer.write(head("".join(random.choices("ABCDEFGH", k=8)), "/") + b"\r\n")
    await asyncio.sleep(1)


async def silence(writer: Writer) -> None:
    await asyncio.sleep(HOLD)


async def deafness(writer: Writer) -> None:
    """Ask without reading the answers."""
    await endless(writer, b"", (head("GET", "/openapi.json") + b"\r\n") * 100)


async def bombs(writer: Writer) -> None:
    fields = f"Content-Encoding: gzip\r\nContent-Length: {len(BOMB)}\r\n\r\n"
    writer.write(head("POST", PREDICT, fields) + BOMB)
    await writer.drain()
    await asyncio.sleep(1)


BOMB = gzip.compress(bytes(200_000_000), 9)
#: Attacks, and how many times as many connections they have as others.
ATTACKS: dict[Callable[[Writer], Coroutine[Any, Any, None]], int] = {
    headers: 1, url: 1, trailers: 1, pings: 1, fragments: 1, bodies: 64, methods: 64,
    silence: 300, deafness: 1, bombs: 1,
}  # fmt: skip


async def repeat(attack: Callable[[Writer], Coroutine[Any, Any, None]], port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            try:
                await attack(writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))


async def attack_all(port: int, names: list[str]) -> None:
    chosen = [a for a in ATTACKS if not names or a.__name__ in names for _ in range(ATTACKS[a])]
    await asyncio.gather(*(repeat(a, port) for a in chosen for _ in range(TOGETHER)))


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(attack_all(int(sys.argv[1]), sys.argv[2:]))
