"""Find the files that a source names."""

from __future__ import annotations

import difflib
import gzip
import importlib
import importlib.util
import lzma
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.engine.core.errors import UserError

#: Environment variable with the folder that relative paths start from; else the working directory.
DATA_SETTING = "UNFOLD_DATA"


def locate(source: str) -> Path:
    """Return the file or folder that a source names; a file may exist in compressed form only.

    Raises:
        UserError: There is no such file, folder or package.
    """
    if not source.startswith("package:"):
        if not source.strip():
            raise UserError("data: a source has no name")
        path = resolve(source)
        found = existing(path)
        if found is None:
            given = os.environ.get(DATA_SETTING)
            within = "" if not given or path == Path(source) else f" in {DATA_SETTING}={given}"
            raise UserError(f"data: {source}: no such file{within}{_near_files(path)}")
        return found
    package, _, inside = source.removeprefix("package:").partition("/")
    # The package is not imported: that may read all of its data.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"data: {source}: the Python package {package!r} is not installed")
    found = existing(Path(spec.submodule_search_locations[0]) / inside) if inside else None
    if found is None:
        raise UserError(f"data: {source}: the package has no file {inside!r}")
    return found


def resolve(source: str) -> Path:
    """Resolve a relative path against ``UNFOLD_DATA``, if set.

    Raises:
        UserError: ``UNFOLD_DATA`` is not a folder.
    """
    path = Path(source).expanduser()
    given = os.environ.get(DATA_SETTING)
    if path.is_absolute() or not given:
        return path
    start = Path(given).expanduser()
    if not start.is_dir():
        raise UserError(f"{DATA_SETTING}={given}: no such folder")
    return start / path


def existing(path: Path) -> Path | None:
    """Return the path, or its compressed form, if it exists."""
    if path.is_file() or path.is_dir():
        return path
    compressed = (path.with_name(path.name + ending) for ending in COMPRESSION if path.name)
    return next((p for p in compressed if p.is_file()), None)


def files_in(source: str, folder: Path) -> dict[str, Path]:
    """Return the readable files of a folder by their path inside it, sorted; hidden ones excluded.

    Raises:
        UserError: The folder cannot be read, has no such file, or lacks shards.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}")

    files: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(parent) / name for name in names if not name.startswith(".")):
            if file_extension(file) and file.is_file():
                name = file.relative_to(folder).as_posix()
                # A name that is not UTF-8 could not be printed.
                files[name.encode("utf-8", "backslashreplace").decode()] = file
    if not files:
        raise UserError(f"data: {source}: the folder has nothing to read; {supported_extensions()}")
    _require_all_shards(source, files)
    return dict(sorted(files.items()))


def is_pattern(source: str) -> bool:
    """Return whether a source is a pattern such as ``reviews-*.csv``."""
    return any(c in source for c in "*?[") and not source.startswith("package:")


def matching_files(source: str) -> dict[str, Path]:
    """Return the files that match a pattern, by their path below its last fixed folder, sorted.

    Raises:
        UserError: No file matches, or shards are missing.
    """
    parts = Path(source).expanduser().parts
    fixed = next(i for i, part in enumerate(parts) if is_pattern(part))
    folder = locate(str(Path(*parts[:fixed])))
    if not folder.is_dir():
        raise UserError(f"data: {source}: {folder} is not a folder")
    found = sorted(p for p in folder.glob(str(Path(*parts[fixed:]))) if p.is_file())
    if not found:
        raise UserError(f"data: {source}: no file in {folder} matches")
    files = {p.relative_to(folder).as_posix(): p for p in found}
    if not set("[?") & set(parts[-1]):  # such a pattern may select some shards on purpose
        _require_all_shards(source, files)
    return files


#: The suffix of a shard's name: its number and the number of shards.
SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


def _require_all_shards(source: str, files: Mapping[str, Path]) -> None:
    """Raise if shards of a data set are missing: training on a part would go unnoticed."""
    shards: dict[tuple[str, int], set[int]] = {}
    for name in files:
        if part := SHARD.search(name):
            shards.setdefault((name[: part.start()], int(part[2])), set()).add(int(part[1]))
    for (name, count), present in shards.items():
        if missing := sorted(set(range(count)) - present):
            raise UserError(
                f"data: {source}: {len(missing):,} of {count:,} parts are missing, the first: "
                f"{name}-{missing[0]:05}-of-{count:05}"
            )


def file_extension(path: Path) -> str | None:
    """Return the extension that selects the reader, None if no reader has it.

    The suffixes of shards and compressed files are ignored.
    """
    path = path.with_name(SHARD.sub("", path.name))
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSION else path
    ending = plain.suffix.lower()
    return ending if ending in EXTENSIONS else None


def supported_extensions() -> str:
    """Return a sentence for messages that lists the extensions."""
    compressed = " or ".join(COMPRESSION)
    return (
        f"files are read by their ending: {', '.join(EXTENSIONS)}, also with {compressed} after it"
    )


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


#: The extensions of files that can be read; `files.READERS` has a reader for each.
EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".tfrecord", ".txt", ".md", ".abc")
#: What opens each kind of compressed file, by its extension.
COMPRESSION: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}


#: Roots of Debian's files: the system, and where `make dictionary` and `make emoji` unpack them.
DEBIAN_ROOTS = (Path("/"), Path(sys.prefix) / "debian")


def find_debian_file(name: str) -> Path | None:
    """Return a file of a Debian package, given relative to the root, if it exists."""
    return next((p for p in (root / name for root in DEBIAN_ROOTS) if p.is_file()), None)
