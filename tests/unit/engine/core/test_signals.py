"""The first signal asks for a stop, the second one stops."""

import os
import signal

import pytest

from pipelines.engine.core import signals


@pytest.fixture(autouse=True)
def handlers():
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.install()
    yield
    signals.install()  # clears the flag
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_only_makes_check_raise(number):
    signals.check()
    os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        signals.check()
    # The next signal has its usual effect.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
