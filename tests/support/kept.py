"""What takes long to make and depends on the code alone, kept from one session to the next."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from pathlib import Path

from tests.support import ROOT

_SETTING = "UNFOLD_TESTS_KEPT"
#: What a trained run depends on.
_SOURCES = ("configs", "layers", "pipelines", "requirements", "tests/support")
#: Hours after which the runs of older code are removed.
_HOURS = 6


def choose() -> None:
    """Choose the folder of a session before its workers start, and remove those of older code."""
    if _SETTING in os.environ:
        return
    folder = ROOT / ".pytest_cache" / "kept" / _version()
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    os.environ[_SETTING] = str(folder)
    for other in folder.parent.iterdir():
        if time.time() - other.stat().st_mtime > _HOURS * 3600:
            shutil.rmtree(other, ignore_errors=True)


def kept() -> Path:
    """Return the folder, which all processes of the session share."""
    return Path(os.environ[_SETTING])


def _version() -> str:
    """Return a hash of the code, and of the machine: another one rounds differently."""
    machine = (platform.uname(), platform.python_version(), os.cpu_count())
    found = hashlib.sha256(repr(machine).encode())
    for folder in _SOURCES:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return found.hexdigest()[:16]
