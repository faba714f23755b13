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

#: The folder that relative paths of sources start from; the working directory if not set.
DATA_SETTING = "UNFOLD_DATA"


def locate(source: str) -> Path:
    """The file or folder that is meant; a file may be there in compressed form only."""
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
    # Found, not imported: importing a package of data may read all of it.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"data: {source}: the Python package {package!r} is not installed")
    found = existing(Path(spec.submodule_search_locations[0]) / inside) if inside else None
    if found is None:
        raise UserError(f"data: {source}: the package has no file {inside!r}")
    return found


def resolve(source: str) -> Path:
    """Where a path begins that is not absolute."""
    path = Path(source).expanduser()
    given = os.environ.get(DATA_SETTING)
    if path.is_absolute() or not given:
        return path
    start = Path(given).expanduser()
    if not start.is_dir():
        raise UserError(f"{DATA_SETTING}={given}: no such folder")
    return start / path


def existing(path: Path) -> Path | None:
    if path.is_file() or path.is_dir():
        return path
    compressed = (path.with_name(path.name + ending) for ending in COMPRESSION if path.name)
    return next((p for p in compressed if p.is_file()), None)


def files_in(source: str, folder: Path) -> dict[str, Path]:
    """The files of a folder that can be read, by their path in it, in an order that stays."""

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
    """Whether a source names all files that it fits: ``reviews-*.csv``."""
    return any(c in source for c in "*?[") and not source.startswith("package:")


def matching_files(source: str) -> dict[str, Path]:
    """The files that a pattern fits, by their path from where it begins to be one."""
    parts = Path(source).expanduser().parts
    fixed = next(i for i, part in enumerate(parts) if is_pattern(part))
    folder = locate(str(Path(*parts[:fixed])))
    if not folder.is_dir():
        raise UserError(f"data: {source}: {folder} is no folder")
    found = sorted(p for p in folder.glob(str(Path(*parts[fixed:]))) if p.is_file())
    if not found:
        raise UserError(f"data: {source}: no file in {folder} fits")
    files = {p.relative_to(folder).as_posix(): p for p in found}
    if not set("[?") & set(parts[-1]):  # else some of them may be meant
        _require_all_shards(source, files)
    return files


#: The number of a part, and how many there are, at the end of a file's name.
SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


def _require_all_shards(source: str, files: Mapping[str, Path]) -> None:
    """Half of a data set is no data set."""
    wholes: dict[tuple[str, int], set[int]] = {}
    for name in files:
        if part := SHARD.search(name):
            wholes.setdefault((name[: part.start()], int(part[2])), set()).add(int(part[1]))
    for (name, count), there in wholes.items():
        if missing := sorted(set(range(count)) - there):
            raise UserError(
                f"data: {source}: {len(missing):,} of {count:,} parts are missing, the first: "
                f"{name}-{missing[0]:05}-of-{count:05}"
            )


def file_extension(path: Path) -> str | None:
    """What decides how a file is read; None if it is not."""
    path = path.with_name(SHARD.sub("", path.name))
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSION else path
    ending = plain.suffix.lower()
    return ending if ending in EXTENSIONS else None


def supported_extensions() -> str:
    compressed = " or ".join(COMPRESSION)
    return (
        f"files are read by their ending: {', '.join(EXTENSIONS)}, also with {compressed} after it"
    )


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


#: What opens each form of compression, by its ending.
#: Files are read by these endings; `files.READERS` has a reader for each.
EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".tfrecord", ".txt", ".md", ".abc")
COMPRESSION: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}


#: Where the files of Debian's packages are: installed, or unpacked by `make dictionary` and
#: `make emoji`.
DEBIAN_ROOTS = (Path("/"), Path(sys.prefix) / "debian")


def find_debian_file(name: str) -> Path | None:
    """A file of one of Debian's packages, if it is there."""
    return next((p for p in (root / name for root in DEBIAN_ROOTS) if p.is_file()), None)
