"""Stop training at the end of a step on Ctrl-C (SIGINT) or on a scheduler's SIGTERM.

Raising an exception in the signal handler is not enough: Python drops exceptions raised while a
finalizer or a library's callback runs. So the handler only sets a flag, and `check` raises where
it is safe to stop. A second signal ends the process at once, as usual.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_stop_requested = False


def install() -> None:
    """Handle the first SIGINT or SIGTERM by setting the flag."""
    global _stop_requested
    _stop_requested = False
    for number in _HANDLED:
        signal.signal(number, _request_stop)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle signals as `install` does until the block ends, and then as before.

    Python handles signals in the main thread only: in another thread, nothing changes.
    """
    global _stop_requested
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _HANDLED}
    if not in_main_thread or _request_stop in before.values():  # another block handles them
        yield
        return
    install()
    try:
        yield
    finally:
        _stop_requested = False
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raise KeyboardInterrupt if a signal has arrived."""
    if _stop_requested:
        raise KeyboardInterrupt


def _request_stop(number: int, frame: FrameType | None) -> None:
    global _stop_requested
    _stop_requested = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
