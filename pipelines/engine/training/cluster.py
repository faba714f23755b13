"""Processes that train one model together: how they find, watch and leave each other.

Process 0 listens on the coordinator's address; the others call it. Each tells it every two
seconds that it lives. Where one falls silent, or cannot be reached, the others say so and end:
a step that waits for it would wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from pipelines.engine.core import _compat
from pipelines.engine.core.errors import ProcessLostError, UserError

#: Seconds between two signs of life, and without one until a process counts as lost.
_BEAT, _SILENCE = 2.0, 30.0
#: Seconds that a process has to end by itself when another one is lost.
_GRACE = 10.0
#: Seconds that a process waits for the others to start.
_START = 300
#: Launchers whose variables tell each process its place: how many there are, by name.
_LAUNCHERS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
_RANKS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
#: Set in a process that `stand_by` looks after.
_WARDED = "UNFOLD_WARDED"
_PREFIX = "KERAS_DISTRIBUTION_"
#: The processes that this one has met.
_joined: Cluster | None = None


@dataclass(frozen=True)
class Location:
    """One process among several.

    Attributes:
        coordinator: ``HOST:PORT`` of process 0; None if the launcher says it.
        processes, number: how many there are, and which one this is; None likewise.
    """

    coordinator: str | None
    processes: int | None
    number: int | None

    @classmethod
    def of(
        cls, coordinator: str | None, processes: int | None, number: int | None
    ) -> Location | None:
        """From the command line, else from the environment; None for a process on its own.

        Raises:
            UserError: some of the three are given, but not all, or they do not fit.
        """
        where = "--coordinator, --processes, --process-id"
        given = [coordinator, processes, number]
        if given == [None] * 3:
            names = [f"{_PREFIX}{n}" for n in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")]
            found = [os.environ.get(name) for name in names]
            if found == [None] * 3:
                size = next((os.environ[n] for n in _LAUNCHERS if n in os.environ), "1")
                return cls(None, None, None) if size != "1" else None
            where = ", ".join(names)
            try:
                counts = [int(text) if text else None for text in found[1:]]
            except ValueError:
                raise UserError(f"{where}: the last two must be numbers") from None
            given = [found[0] and found[0].split(",")[0], *counts]
        coordinator, processes, number = given  # type: ignore[assignment]
        if coordinator is None or processes is None or number is None:
            raise UserError(f"{where}: all three must be given, or none")
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"{where}: {coordinator} is not HOST:PORT")
        if not 0 <= number < processes:
            raise UserError(f"{where}: process {number} of {processes} (the first one is 0)")
        return cls(coordinator, processes, number)

    @property
    def follows(self) -> bool:
        """Whether this is another process than the first."""
        rank = next((os.environ[n] for n in _RANKS if n in os.environ), "0")
        return rank != "0" if self.number is None else self.number > 0


def stand_by(place: Location, command: Sequence[str]) -> int | None:
    """Run ``command``, that of a process that follows, in a process of its own, and speak for it.

    Where process 0 is gone, JAX aborts whoever is connected to it, and prints a stack of calls.

    Returns:
        The exit code of the command; None where this is that process.
    """
    if not place.follows or os.environ.pop(_WARDED, ""):
        return None
    ward = subprocess.Popen(
        command,
        env=os.environ | {_WARDED: "1"},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ward.send_signal(number))
    assert ward.stderr is not None
    _pass_on(ward.stderr)
    if (code := ward.wait()) == -signal.SIGABRT:
        sys.stderr.write(f"error: {_message('process 0')}\n")
        return 1
    return code


def _pass_on(lines: IO[str]) -> None:
    """What a process writes to standard error, but for the last words of one that aborts."""
    for line in lines:
        if line.startswith("F") and "distributed service" in line:
            lines.read()
            return
        sys.stderr.write(line)


def _message(who: str) -> str:
    return (
        f"{who} of this training is lost; continue from the last checkpoint, with as many "
        "processes as there are now: unfold train TASK --resume RUN"
    )


class Cluster:
    """The processes of one training, seen by one of them. ``number`` 0 is the one that writes."""

    def __init__(self, client: Any, processes: int, number: int) -> None:
        self._client, self.processes, self.number = client, processes, number
        self._done = threading.Event()
        self._parent = os.getppid()
        self._lost: str | None = None
        self._raised = False
        self._told = 0
        #: Whether this process is on its own again.
        self.left = False
        #: What is done before this process ends because another one is lost.
        self.on_loss: Callable[[], object] = lambda: None
        threading.Thread(target=self._watch, daemon=True).start()

    def agree(self, what: str, value: str) -> None:
        """See that every process has the same ``value`` as process 0.

        Raises:
            UserError: this one has another.
        """
        if self.number == 0:
            self._client.key_value_set(f"unfold/{what}", value)
        elif self._awaited(f"unfold/{what}") != value:
            raise UserError(
                f"process {self.number} has another {what} than process 0; all must have the same "
                "config and data"
            )

    def tell(self, text: str | None) -> str:
        """The text of process 0, in every process."""
        self._told += 1
        key = f"unfold/told/{self._told}"
        if self.number == 0:
            assert text is not None
            self._client.key_value_set(key, text)
            return text
        return self._awaited(key)

    def _awaited(self, key: str) -> str:
        """What process 0 says under ``key``, however long it has to do before: where it is lost
        meanwhile, this process is ended."""
        import jax

        while True:
            try:
                # In short pieces: a signal is heard between two of them only.
                return str(self._client.blocking_key_value_get(key, int(_BEAT * 1000)))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Turn what a step raises when another process is gone into a ProcessLostError.

        A failed connection is a ValueError where JAX compares arrays of several processes.

        Raises:
            ProcessLostError: another process was lost.
        """
        import jax

        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if isinstance(error, ValueError) and "Gloo" not in str(error):
                raise
            until = time.monotonic() + _SILENCE + 2 * _BEAT
            while self._lost is None and time.monotonic() < until:
                time.sleep(0.1)
            if self._lost is None:
                raise
            self._raised = True
            raise ProcessLostError(self._lost) from None

    def leave(self) -> None:
        """Leave, together with all others; from here on each process is on its own.

        Process 0 may still have to write what the others have helped to make. They give signs of
        life until then: JAX's own end waits for a minute only, and nobody would hear them there.
        """
        import jax

        self.tell("the end" if self.number == 0 else None)
        self._done.set()
        jax.distributed.shutdown()
        self.left = True

    def _watch(self) -> None:
        beats: dict[str, tuple[str, float]] = {}
        count = 0
        while not self._done.wait(_BEAT):
            if self.number and os.getppid() != self._parent:
                os._exit(1)  # who speaks for this process is gone
            count += 1
            try:
                self._client.key_value_set(
                    f"unfold/beat/{self.number}", str(count), allow_overwrite=True
                )
                found = dict(self._client.key_value_dir_get("unfold/beat/"))
            except Exception:  # noqa: BLE001 (whatever it is, process 0 does not answer)
                if not self._done.is_set():
                    self._end("process 0")
                return
            now = time.monotonic()
            for key, beat in found.items():
                if beats.get(key, ("", 0.0))[0] != beat:
                    beats[key] = (beat, now)
            silent = [key for key, (_, since) in beats.items() if now - since > _SILENCE]
            if silent and not self._done.is_set():
                self._end("process " + ", ".join(key.rpartition("/")[2] for key in silent))
                return

    def _end(self, who: str) -> None:
        """Say who is lost, and end this process; at once, as a step may be waiting for it."""
        self._lost = _message(who)
        time.sleep(1)
        if self._raised:  # the step has noticed as well, and the command says it and ends
            time.sleep(_GRACE)
        else:
            self.on_loss()
            sys.stderr.write(f"error: {self._lost}\n")
            sys.stderr.flush()
        os._exit(1)


def joined() -> Cluster | None:
    """Return what `join` has returned in this process, or None."""
    return _joined


def end(code: int) -> NoReturn:
    """End this process with ``code``; at once where it has not left the others.

    JAX's own end would wait for them all, and abort where one is gone.
    """
    if _joined is None or _joined.left:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _own_output() -> None:
    """Keep standard output for this program: Gloo prints there how it is connected."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def join(place: Location) -> Cluster:
    """Meet the other processes. To be called before JAX computes anything.

    Raises:
        UserError: they do not come, or process 0 cannot be reached.
    """
    import jax

    try:
        jax.distributed.initialize(
            place.coordinator,
            place.processes,
            place.number,
            initialization_timeout=_START,
            heartbeat_timeout_seconds=60,
            shutdown_timeout_seconds=60,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of this training did not meet: {str(error).splitlines()[0]}"
        ) from None
    _own_output()
    global _joined
    _joined = Cluster(_compat.coordination_client(), jax.process_count(), jax.process_index())
    return _joined
