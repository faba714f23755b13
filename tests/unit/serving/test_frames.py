"""The frames of a WebSocket are counted right, however they arrive."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from pipelines.serving.frames import MAX_FRAMES, FrameLimiter


class Reader:
    """Keeps what it is fed."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""


def fed(data: bytes, cuts: list[int]) -> tuple[bytes, int]:
    """Feed data in pieces; return what was passed on, and how often there was too much."""
    reader: Any = Reader()
    calls: list[None] = []
    limiter = FrameLimiter(reader, lambda: calls.append(None))
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        assert limiter.feed_data(data[start:end]) == (False, b"")
    return reader.data, len(calls)


FRAMES = st.builds(
    lambda opcode, size, fin: Frame(opcode, b"a" * size, fin or opcode >= Opcode.CLOSE),
    st.sampled_from([Opcode.TEXT, Opcode.CONT, Opcode.PING, Opcode.PONG]),
    st.sampled_from([0, 1, 125, 126, 65_535, 65_536]),
    st.booleans(),
).filter(lambda frame: frame.opcode < Opcode.CLOSE or len(frame.data) < 126)


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 10**6), max_size=8), st.booleans())
def test_frames_are_counted_however_they_are_divided(frames, cuts, mask):
    data = b"".join(frame.serialize(mask=mask) for frame in frames)
    assert fed(data, cuts) == (data, 0)
    counted = sum(frame.opcode >= Opcode.CLOSE or not frame.fin for frame in frames)
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    left = ping * (MAX_FRAMES - counted)
    assert fed(data + left, cuts) == (data + left, 0)
    assert fed(data + left + ping + ping, cuts)[1] == 1
