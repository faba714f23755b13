"""Which versions of which models are served: the folders say so.

``ROOT/NAME/NUMBER/`` with a SavedModel is a version. Of each model the newest ones that can be
loaded are served. A new one is loaded and warmed beside the old one, then new requests go to it;
the old one answers those that it has and is closed. So it is where the files of a version change.
One that cannot be loaded is told, skipped, and tried again when its files change, or a while later:
what was missing may have been memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.serving.batching import Batcher
from pipelines.serving.config import ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.metrics import LOGGER, Metrics, log
from pipelines.serving.servable import Servable, give_back

State = Literal["LOADING", "AVAILABLE", "UNLOADING", "END"]
#: Seconds until a version that could not be loaded is tried again as it is.
_RETRY = 60.0


@dataclass(frozen=True)
class Folder:
    """Where a version is, and its files with their sizes and times."""

    path: Path
    files: frozenset[tuple[str, int, int]]


@dataclass(eq=False)
class Version:
    """One version of a model and what becomes of it.

    Attributes:
        state: in TensorFlow Serving's words.
        error: why it could not be loaded.
        folder: as it was when it was last tried to load it.
        tried: when that was, by the loop's clock.
    """

    name: str
    number: int
    folder: Folder
    tried: float
    state: State = "LOADING"
    error: str = ""
    servable: Servable | None = None
    batchers: dict[str, Batcher] = field(default_factory=dict)
    _users: int = 0
    _free: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def used(self) -> Iterator[Servable]:
        """Keep it from being closed."""
        assert self.servable is not None
        self._users += 1
        try:
            yield self.servable
        finally:
            self._users -= 1
            if not self._users:
                self._free.set()

    async def drained(self) -> None:
        while self._users:
            self._free.clear()
            await self._free.wait()


class Repository:
    """All models below a folder."""

    def __init__(
        self, root: Path, names: Sequence[str], config: ServingConfig, metrics: Metrics
    ) -> None:
        """
        Args:
            names: those that are served; all there are, if empty.
        """
        self._root, self._names, self._config, self._metrics = root, names, config, metrics
        self._models: dict[str, dict[int, Version]] = {name: {} for name in names}
        self._loader = ThreadPoolExecutor(1, "load")
        self._workers: Executor = ThreadPoolExecutor(config.workers, "model")
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        return sorted(self._models)

    def versions(self, name: str) -> list[Version]:
        """All that were seen, the newest first.

        Raises:
            RequestError: 404, if there is no such model.
        """
        if name not in self._models:
            raise RequestError(404, f"Could not find any versions of model {name}")
        return sorted(self._models[name].values(), key=lambda v: -v.number)

    def find(self, name: str, number: int | None = None) -> Version:
        """The version asked for; the newest one that is served if none.

        Raises:
            RequestError: 404 if it is not served; 503 if it will be, once it is loaded.
        """
        wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        known = self._models.get(name, {}).values()
        there = [v for v in known if number in (None, v.number)]
        served = [v for v in there if v.state == "AVAILABLE"]
        if served:
            return max(served, key=lambda v: v.number)
        unseen = name in self._models and not known
        if unseen or any(v.state == "LOADING" for v in there):
            raise RequestError(503, f"Servable is being loaded for request: {wanted}")
        raise RequestError(404, f"Servable not found for request: {wanted}")

    def ready(self) -> dict[str, bool]:
        """Of each model, whether some version of it is served."""
        return {
            name: any(v.state == "AVAILABLE" for v in versions.values())
            for name, versions in sorted(self._models.items())
        }

    async def watch(self) -> None:
        """Look for changes until cancelled."""
        while True:
            try:
                await self.look()
            except OSError as error:
                log("the exports cannot be read", logging.ERROR, reason=error.strerror)
            except Exception:  # noqa: BLE001 - what is served goes on, and the next look may do
                LOGGER.exception("a look at the exports failed")
            await asyncio.sleep(self._config.poll_seconds)

    async def look(self) -> None:
        """Load what is new, and let go of what is replaced."""
        found = await asyncio.to_thread(_scan, self._root, self._names)
        for name in found:
            self._models.setdefault(name, {})
        for name, folders in found.items():
            known = self._models[name]
            for number in [n for n, v in known.items() if v.state == "END" and n not in folders]:
                del known[number]
            wanted: list[int] = []
            for number, folder in sorted(folders.items(), reverse=True):
                if len(wanted) == self._config.versions:
                    break
                if await self._is_served(known, name, number, folder):
                    wanted.append(number)
            if not wanted:
                continue  # rather what was served so far than nothing
            for version in known.values():
                if version.state == "AVAILABLE" and version.number not in wanted:
                    self._let_go(version)
            self._metrics.version.labels(name).set(max(wanted))

    async def close(self) -> None:
        """End all that is served, once it is not used any more."""
        for versions in self._models.values():
            for version in versions.values():
                if version.state == "AVAILABLE":
                    self._let_go(version)
        await asyncio.gather(*self._closing)
        self._loader.shutdown()
        self._workers.shutdown()

    async def _is_served(
        self, known: dict[int, Version], name: str, number: int, folder: Folder
    ) -> bool:
        """Whether a version answers requests; it is loaded if need be."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        old = known.get(number)
        is_served = old is not None and old.state == "AVAILABLE"
        if old is not None and old.folder == folder:
            if is_served and not old.error:
                return True
            if old.error and started - old.tried < _RETRY:
                return is_served  # as broken as it was
        version = Version(name, number, folder, started)
        if not is_served:
            known[number] = version
        try:
            servable = await loop.run_in_executor(self._loader, Servable, name, number, folder.path)
        except Exception as error:  # noqa: BLE001 - whatever a broken folder makes TensorFlow raise
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            self._metrics.loads.labels(name, "failed").inc()
            log("version skipped", logging.ERROR, model=name, version=number, reason=reason)
            if old is not None and is_served:  # with the files that it had before
                old.folder, old.tried, old.error = folder, started, reason
            else:
                version.state, version.error = "END", reason
            return is_served
        note = self._metrics.batch_rows.labels(name).observe
        version.batchers = {
            key: Batcher(
                signature, self._config.batching, self._workers, self._config.workers, note
            )
            for key, signature in servable.signatures.items()
        }
        version.servable, version.state = servable, "AVAILABLE"
        known[number] = version
        if old is not None and is_served:
            self._let_go(old)
        self._metrics.loads.labels(name, "loaded").inc()
        seconds = round(loop.time() - started, 3)
        log("version served", model=name, version=number, seconds=seconds)
        return True

    def _let_go(self, version: Version) -> None:
        async def end() -> None:
            await version.drained()
            servable, version.servable, version.batchers = version.servable, None, {}
            assert servable is not None
            await asyncio.to_thread(servable.close)
            del servable
            await asyncio.to_thread(give_back)
            version.state = "END"
            log("version ended", model=version.name, version=version.number)

        version.state = "UNLOADING"
        task = asyncio.get_running_loop().create_task(end())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _scan(root: Path, names: Sequence[str]) -> dict[str, dict[int, Folder]]:
    """The versions of each model."""
    models = [root / name for name in names] or sorted(
        p for p in root.glob("*") if p.is_dir() and not p.name.startswith(".")
    )
    found = {
        model.name: {
            int(path.name): Folder(path, files)
            for path in (model.iterdir() if model.is_dir() else ())
            if path.name.isascii() and path.name.isdecimal() and (files := _files(path))
        }
        for model in models
    }
    return {name: versions for name, versions in found.items() if versions}


def _files(folder: Path) -> frozenset[tuple[str, int, int]]:
    """None as long as there is no SavedModel."""
    if not (folder / "saved_model.pb").is_file():
        return frozenset()
    stats = [(str(p.relative_to(folder)), p.stat()) for p in folder.rglob("*") if p.is_file()]
    return frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
