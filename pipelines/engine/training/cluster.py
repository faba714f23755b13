"""Several processes that train one model: how they connect, watch and leave each other.

Process 0 listens on the coordinator's address and the others connect to it. Each sends a heartbeat
every two seconds. If one falls silent or cannot be reached, the others report it and exit: a step
that needs its gradients would wait forever.
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
from pipelines.engine.core.commands import command
from pipelines.engine.core.errors import ProcessLostError, UserError

#: Seconds between two heartbeats, and seconds without one after which a process counts as lost.
_HEARTBEAT, _LOST_AFTER = 2.0, 30.0
#: Seconds in which a process may exit by itself once another one is lost.
_GRACE = 10.0
#: Seconds in which all processes must have started.
_CONNECT = 300
#: Variables in which launchers give each process the number of processes, and its own number.
_SIZE_VARIABLES = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
_RANK_VARIABLES = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
#: Set in a process that `supervise` has started.
_SUPERVISED = "UNFOLD_SUPERVISED"
_KERAS_PREFIX = "KERAS_DISTRIBUTION_"
#: The cluster that this process has joined.
_joined: Cluster | None = None


@dataclass(frozen=True)
class Location:
    """Which one of several processes this is.

    All three are None if JAX reads them from the launcher's environment.

    Attributes:
        coordinator: ``HOST:PORT`` of process 0.
        processes: How many there are.
        process_id: Which one this is, from 0.
    """

    coordinator: str | None
    processes: int | None
    process_id: int | None

    @classmethod
    def resolve(
        cls, coordinator: str | None, processes: int | None, process_id: int | None
    ) -> Location | None:
        """Read the location from the command line, or else from the environment.

        Returns:
            None for a process on its own.

        Raises:
            UserError: Some of the three are given but not all, or they contradict each other.
        """
        source = "--coordinator, --processes, --process-id"
        if coordinator is None and processes is None and process_id is None:
            names = [
                f"{_KERAS_PREFIX}{n}" for n in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
            ]
            addresses, *numbers = [os.environ.get(name) for name in names]
            if addresses is None and numbers == [None, None]:
                size = next((os.environ[n] for n in _SIZE_VARIABLES if n in os.environ), "1")
                return cls(None, None, None) if size != "1" else None
            source = ", ".join(names)
            coordinator = addresses and addresses.split(",")[0]
            try:
                processes, process_id = (int(text) if text else None for text in numbers)
            except ValueError:
                raise UserError(f"{source}: the last two must be numbers") from None
        if coordinator is None or processes is None or process_id is None:
            raise UserError(f"{source}: all three must be given, or none")
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"{source}: {coordinator} is not HOST:PORT")
        if not 0 <= process_id < processes:
            raise UserError(f"{source}: process {process_id} of {processes} (the first one is 0)")
        return cls(coordinator, processes, process_id)

    @property
    def is_follower(self) -> bool:
        """Whether this is another process than process 0."""
        rank = next((os.environ[n] for n in _RANK_VARIABLES if n in os.environ), "0")
        return rank != "0" if self.process_id is None else self.process_id > 0


def supervise(location: Location, command: Sequence[str]) -> int | None:
    """Run a follower's ``command`` in a child process and report how it ends.

    If process 0 is gone, JAX aborts every process that is connected to it and prints a stack
    trace. The supervisor prints one line instead.

    Returns:
        The exit code of the command; None in process 0 and in the child itself.
    """
    if not location.is_follower or os.environ.pop(_SUPERVISED, ""):
        return None
    child = subprocess.Popen(
        command,
        env=os.environ | {_SUPERVISED: "1"},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: child.send_signal(number))
    assert child.stderr is not None
    _forward_errors(child.stderr)
    if (code := child.wait()) == -signal.SIGABRT:
        sys.stderr.write(f"error: {_loss_message('process 0')}\n")
        return 1
    return code


def _forward_errors(lines: IO[str]) -> None:
    """Copy lines to standard error, up to JAX's message that it aborts."""
    for line in lines:
        if line.startswith("F") and "distributed service" in line:
            lines.read()
            return
        sys.stderr.write(line)


def _loss_message(process: str) -> str:
    return (
        f"{process} of this training is lost; continue from the last checkpoint, with as many "
        f"processes as there are now: {command('train', 'TASK', run='RUN')}"
    )


class Cluster:
    """The processes of one training, as one of them sees them.

    Args:
        client: JAX's client of its coordination service.
        processes: How many there are.
        process_id: Which one this is. Process 0 writes the run.

    Attributes:
        has_left: Whether this process has left the others.
        on_loss: Called before this process exits because another one is lost.
    """

    def __init__(self, client: Any, processes: int, process_id: int) -> None:
        self._client, self.processes, self.process_id = client, processes, process_id
        self._done = threading.Event()
        self._parent = os.getppid()
        self._loss: str | None = None
        self._raised = False
        self._broadcasts = 0
        self.has_left = False
        self.on_loss: Callable[[], object] = lambda: None
        threading.Thread(target=self._exchange_heartbeats, daemon=True).start()

    def require_equal(self, name: str, value: str) -> None:
        """Check that this process has the same ``value`` as process 0.

        Args:
            name: What the value is, for the message.
            value: Compared as text.

        Raises:
            UserError: The values differ.
        """
        if self.process_id == 0:
            self._client.key_value_set(f"unfold/{name}", value)
        elif self._wait_for(f"unfold/{name}") != value:
            raise UserError(
                f"process {self.process_id} has another {name} than process 0; all must have the "
                "same config and data"
            )

    def broadcast(self, text: str | None) -> str:
        """Return the text of process 0 in every process.

        Args:
            text: Sent by process 0; ignored in the others.
        """
        self._broadcasts += 1
        key = f"unfold/broadcast/{self._broadcasts}"
        if self.process_id == 0:
            assert text is not None
            self._client.key_value_set(key, text)
            return text
        return self._wait_for(key)

    def _wait_for(self, key: str) -> str:
        """Wait until process 0 has set ``key``, however long that takes.

        If process 0 is lost meanwhile, the heartbeat thread ends this process.
        """
        import jax

        while True:
            try:
                # In short intervals: Python handles signals only between two calls.
                return str(self._client.blocking_key_value_get(key, int(_HEARTBEAT * 1000)))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    @contextlib.contextmanager
    def detect_loss(self) -> Iterator[None]:
        """Turn the error that a step raises when another process is gone into a ProcessLostError.

        Raises:
            ProcessLostError: Another process was lost.
        """
        import jax

        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            # Where JAX compares arrays of several processes, a failed connection is a ValueError.
            if isinstance(error, ValueError) and "Gloo" not in str(error):
                raise
            until = time.monotonic() + _LOST_AFTER + 2 * _HEARTBEAT
            while self._loss is None and time.monotonic() < until:
                time.sleep(0.1)
            if self._loss is None:
                raise
            self._raised = True
            raise ProcessLostError(self._loss) from None

    def leave(self) -> None:
        """Leave together with all others; from here on each process is on its own.

        Process 0 may still have to write the results. The others send heartbeats until then:
        JAX's own shutdown waits for only a minute and sends none.
        """
        import jax

        self.broadcast("the end" if self.process_id == 0 else None)
        self._done.set()
        jax.distributed.shutdown()  # type: ignore[no-untyped-call]
        self.has_left = True

    def _exchange_heartbeats(self) -> None:
        latest: dict[str, tuple[str, float]] = {}
        count = 0
        while not self._done.wait(_HEARTBEAT):
            if self.process_id and os.getppid() != self._parent:
                os._exit(1)  # the supervisor is gone
            count += 1
            try:
                self._client.key_value_set(
                    f"unfold/heartbeat/{self.process_id}", str(count), allow_overwrite=True
                )
                counts = dict(self._client.key_value_dir_get("unfold/heartbeat/"))
            except Exception:  # noqa: BLE001 (whatever the error, process 0 does not answer)
                if not self._done.is_set():
                    self._exit_after_loss("process 0")
                return
            now = time.monotonic()
            for key, value in counts.items():
                if latest.get(key, ("", 0.0))[0] != value:
                    latest[key] = (value, now)
            silent = [key for key, (_, since) in latest.items() if now - since > _LOST_AFTER]
            if silent and not self._done.is_set():
                lost = ", ".join(key.rpartition("/")[2] for key in silent)
                self._exit_after_loss(f"process {lost}")
                return

    def _exit_after_loss(self, process: str) -> None:
        """Report which process is lost, and exit even while a step waits for it."""
        self._loss = _loss_message(process)
        time.sleep(1)
        if self._raised:  # the step has failed as well: the command reports it and exits
            time.sleep(_GRACE)
        else:
            self.on_loss()
            sys.stderr.write(f"error: {self._loss}\n")
            sys.stderr.flush()
        os._exit(1)


def join(location: Location) -> Cluster:
    """Connect with the other processes. Must be called before JAX computes anything.

    Raises:
        UserError: The others do not start in time, or process 0 cannot be reached.
    """
    import jax

    try:
        jax.distributed.initialize(
            location.coordinator,
            location.processes,
            location.process_id,
            initialization_timeout=_CONNECT,
            heartbeat_timeout_seconds=60,
            shutdown_timeout_seconds=60,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of this training did not meet: {str(error).splitlines()[0]}"
        ) from None
    _silence_gloo()
    global _joined
    _joined = Cluster(_compat.coordination_client(), jax.process_count(), jax.process_index())
    return _joined


def joined() -> Cluster | None:
    """Return the cluster that this process has joined, if any."""
    return _joined


def exit_process(code: int) -> NoReturn:
    """End this process with an exit code; at once if it has not left its cluster.

    JAX's own shutdown would wait for all processes, and abort if one is gone.
    """
    if _joined is None or _joined.has_left:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _silence_gloo() -> None:
    """Keep Gloo, which prints its connections, off this program's standard output."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)
