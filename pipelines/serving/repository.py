"""The models in the exports folder, and which of their versions are served.

``ROOT/NAME/NUMBER/`` with a SavedModel is a version. Of each model, the newest versions that load
are served, and those that have a label. A new version is loaded and warmed up while the old one
serves; then new requests go to the new one, and the old one finishes requests in flight and is
closed. The same happens if the files of a version change. A version that fails to load is logged
and skipped. It is tried again when its files change, or after a while, since the cause may have
been a lack of memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.serving.batching import Batcher
from pipelines.serving.config import ServingConfig
from pipelines.serving.drift import DriftCollector, DriftWindow
from pipelines.serving.errors import RequestError, hide_paths, shorten
from pipelines.serving.json_codec import DEFAULT_SIGNATURE
from pipelines.serving.log import LOGGER
from pipelines.serving.metrics import Metrics
from pipelines.serving.servable import Servable, release_memory

State = Literal["LOADING", "AVAILABLE", "UNLOADING", "END"]
#: Seconds until an unchanged version that failed to load is tried again.
_RETRY = 60.0


@dataclass(frozen=True)
class VersionFolder:
    """The folder of a version, and its files as (name, size, modification time in ns)."""

    path: Path
    files: frozenset[tuple[str, int, int]]


@dataclass(eq=False)
class Version:
    """One version of a model.

    Attributes:
        name: The model's name.
        number: The version's number.
        folder: The folder as it was at the last attempt to load it.
        attempted: Time of that attempt on the event loop's clock.
        state: The state, as TensorFlow Serving names it.
        error: Why the last attempt failed; empty if it succeeded.
        servable: The loaded model; None unless the state is ``AVAILABLE`` or ``UNLOADING``.
        batchers: For each signature.
        drift: The latest requests beside training; None if the export has no digest.
    """

    name: str
    number: int
    folder: VersionFolder
    attempted: float
    state: State = "LOADING"
    error: str = ""
    servable: Servable | None = None
    batchers: dict[str, Batcher] = field(default_factory=dict)
    drift: DriftWindow | None = None
    _users: int = 0
    _unused: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def in_use(self) -> Iterator[Servable]:
        """Keep the model open while the block runs."""
        assert self.servable is not None
        self._users += 1
        try:
            yield self.servable
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def wait_until_unused(self) -> None:
        """Wait for the blocks of all `in_use` to end."""
        while self._users:
            self._unused.clear()
            await self._unused.wait()


class Repository:
    """All models in a folder."""

    def __init__(
        self, root: Path, names: Sequence[str], config: ServingConfig, metrics: Metrics
    ) -> None:
        """Prepare an empty repository; `watch` and `update` load the models.

        Args:
            root: The folder with a folder for each model.
            names: The models to serve; if empty, all.
            config: The server's config.
            metrics: Where loads, versions and batches are counted.
        """
        self._root, self._names, self._config, self._metrics = root, names, config, metrics
        self._models: dict[str, dict[int, Version]] = {name: {} for name in names}
        self._loader = ThreadPoolExecutor(1, "load")
        self._workers: Executor = ThreadPoolExecutor(config.workers, "model")
        self._unloading: set[asyncio.Task[None]] = set()
        metrics.registry.register(DriftCollector(self._drift))

    @property
    def names(self) -> list[str]:
        """The names of all models found so far, sorted."""
        return sorted(self._models)

    def versions(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> list[Version]:
        """Return the known versions of a model, newest first: all, or that of a number or label.

        Raises:
            RequestError: With status 404 if there is none, 400 if the label is unknown.
        """
        if label is not None:
            version = self._labelled(name, label)
        known = self._models.get(name, {})
        if version is None:
            if name not in self._models:
                raise RequestError(404, f"Could not find any versions of model {shorten(name)}")
            return sorted(known.values(), key=lambda v: -v.number)
        if version not in known:
            raise RequestError(404, f"Could not find version {version} of model {shorten(name)}")
        return [known[version]]

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Version:
        """Return an available version: that of a number or label, or else the newest one.

        Raises:
            RequestError: With status 404 if it is not served, 503 if it is still being loaded, 400
                if the label is unknown.
        """
        if label is not None:
            version = self._labelled(name, label)
        asked = shorten(name)
        request = f"Latest({asked})" if version is None else f"Specific({asked}, {version})"
        known = self._models.get(name, {}).values()
        candidates = [v for v in known if version in (None, v.number)]
        available = [v for v in candidates if v.state == "AVAILABLE"]
        if available:
            return max(available, key=lambda v: v.number)
        is_unscanned = name in self._models and not known
        if is_unscanned or any(v.state == "LOADING" for v in candidates):
            raise RequestError(503, f"Servable is being loaded for request: {request}")
        raise RequestError(404, f"Servable not found for request: {request}")

    def _labelled(self, name: str, label: str) -> int:
        """Return the number of the version with a label.

        Raises:
            RequestError: With status 400 if there is none.
        """
        number = self._config.labels.get(name, {}).get(label)
        version = self._models.get(name, {}).get(number) if number is not None else None
        if version is None or version.state == "END":
            raise RequestError(400, f"Unrecognized servable version label: {shorten(label)}")
        return version.number

    def readiness(self) -> dict[str, bool]:
        """Return, for each model, whether a version is available."""
        return {
            name: any(v.state == "AVAILABLE" for v in versions.values())
            for name, versions in sorted(self._models.items())
        }

    def _drift(self) -> Iterator[tuple[str, DriftWindow]]:
        """Yield the windows of the newest available versions, with their models' names."""
        for name, versions in sorted(self._models.items()):
            available = [v for v in versions.values() if v.state == "AVAILABLE"]
            newest = max(available, key=lambda v: v.number, default=None)
            if newest is not None and newest.drift is not None:
                yield name, newest.drift

    async def watch(self) -> None:
        """Call `update` every ``poll_seconds`` until cancelled."""
        while True:
            try:
                await self.update()
            except OSError as error:
                LOGGER.error("the exports cannot be read", reason=error.strerror)
            except Exception:  # noqa: BLE001 - keep serving; the next update may succeed
                LOGGER.exception("a look at the exports failed")
            await asyncio.sleep(self._config.poll_seconds)

    async def update(self) -> None:
        """Load new versions, and unload those that they replace."""
        found = await asyncio.to_thread(_scan, self._root, self._names)
        for name in found:
            self._models.setdefault(name, {})
        for name, folders in found.items():
            known = self._models[name]
            for number in [n for n, v in known.items() if v.state == "END" and n not in folders]:
                del known[number]
            served: list[int] = []
            labelled = folders.keys() & set(self._config.labels.get(name, {}).values())
            for number in labelled - known.keys():  # until it is their turn
                known[number] = Version(name, number, folders[number], attempted=0.0)
            for number, folder in sorted(folders.items(), reverse=True):
                if len(served) >= self._config.versions and number not in labelled:
                    continue
                if await self._ensure_served(name, number, folder):
                    served.append(number)
            if not served:
                continue  # keep what is served so far rather than nothing
            for version in known.values():
                if version.state == "AVAILABLE" and version.number not in served:
                    self._unload(version)
            self._metrics.version.labels(name).set(max(served))

    async def close(self) -> None:
        """Unload all versions once their requests in flight are finished."""
        for versions in self._models.values():
            for version in versions.values():
                if version.state == "AVAILABLE":
                    self._unload(version)
        await asyncio.gather(*self._unloading)
        self._loader.shutdown()
        self._workers.shutdown()

    async def _ensure_served(self, name: str, number: int, folder: VersionFolder) -> bool:
        """Load a version if it is new or changed; return whether it is available."""
        known = self._models[name]
        old = known.get(number)
        served = old if old is not None and old.state == "AVAILABLE" else None
        now = asyncio.get_running_loop().time()
        if old is not None and old.folder == folder:
            if served is not None and not old.error:
                return True
            if old.error and now - old.attempted < _RETRY:
                return served is not None
        version = Version(name, number, folder, now)
        if served is None:
            known[number] = version
        if not await self._load(version):
            if served is None:
                version.state = "END"
                return False
            # It goes on as it was loaded, with the files of then.
            served.folder, served.attempted, served.error = folder, now, version.error
            return True
        known[number] = version
        if served is not None:
            self._unload(served)
        return True

    async def _load(self, version: Version) -> bool:
        """Load a version in the background; on failure, set its error and return False."""
        loop = asyncio.get_running_loop()
        name, number = version.name, version.number
        try:
            servable = await loop.run_in_executor(
                self._loader, Servable, name, number, version.folder.path
            )
        except Exception as error:  # noqa: BLE001 - a damaged SavedModel can raise anything
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            folder = str(version.folder.path)
            version.error = hide_paths(reason.replace(folder, f"{name}/{number}"))
            self._metrics.loads.labels(name, "failed").inc()
            LOGGER.error("version skipped", model=name, version=number, reason=reason)
            return False
        on_batch = self._metrics.batch_rows.labels(name).observe
        batching, workers = self._config.batching, self._config.workers
        version.batchers = {
            key: Batcher(signature, batching, self._workers, workers, on_batch)
            for key, signature in servable.signatures.items()
        }
        signature = servable.signatures.get(DEFAULT_SIGNATURE)
        if signature is not None:
            specs, window = (signature.inputs, signature.outputs), self._config.drift.window
            version.drift = DriftWindow.of(servable.digest, *specs, window)
        version.servable, version.state = servable, "AVAILABLE"
        self._metrics.loads.labels(name, "loaded").inc()
        seconds = round(loop.time() - version.attempted, 3)
        LOGGER.info(
            "version served", model=name, version=number, seconds=seconds, **servable.origin
        )
        return True

    def _unload(self, version: Version) -> None:
        """Send no more requests to a version, and close it once it is unused."""

        async def close() -> None:
            await version.wait_until_unused()
            servable, version.servable, version.batchers = version.servable, None, {}
            assert servable is not None
            await asyncio.to_thread(servable.close)
            del servable
            await asyncio.to_thread(release_memory)
            version.state = "END"
            LOGGER.info("version ended", model=version.name, version=version.number)

        version.state = "UNLOADING"
        task = asyncio.get_running_loop().create_task(close())
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)


def _scan(root: Path, names: Sequence[str]) -> dict[str, dict[int, VersionFolder]]:
    """Return the versions of each model that has any."""
    models = [root / name for name in names] or sorted(
        p for p in root.glob("*") if p.is_dir() and not p.name.startswith(".")
    )
    found = {
        model.name: {
            int(path.name): VersionFolder(path, files)
            for path in (model.iterdir() if model.is_dir() else ())
            if path.name.isascii() and path.name.isdecimal() and (files := _files(path))
        }
        for model in models
    }
    return {name: versions for name, versions in found.items() if versions}


def _files(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Return the files of a version; empty if it has no SavedModel."""
    if not (folder / "saved_model.pb").is_file():
        return frozenset()
    stats = [(str(p.relative_to(folder)), p.stat()) for p in folder.rglob("*") if p.is_file()]
    return frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
