"""Ctrl-C and a scheduler's polite stop end a training at the next step, and only there.

Raising inside a signal handler is not enough: Python drops an exception that is raised while a
finaliser or a library's callback happens to run. So the wish to stop is remembered, and looked at
where stopping is safe. A second signal ends the process at once, as usual.
"""

from __future__ import annotations

import signal
from types import FrameType

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_wanted = False


def install() -> None:
    """From now on, remember the first SIGINT or SIGTERM."""
    global _wanted
    _wanted = False
    for number in _HANDLED:
        signal.signal(number, _remember)


def check() -> None:
    """Raise KeyboardInterrupt if a stop is wanted."""
    if _wanted:
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    global _wanted
    _wanted = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
