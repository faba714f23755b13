"""Atomic writes, and locks between processes."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.engine.core import files
from pipelines.engine.core.errors import UserError
from tests.support import ROOT

HOLD = """
import sys, time
from pathlib import Path
from pipelines.engine.core.files import lock
with lock(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(600)
"""


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_write_creates_folders_and_replaces_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    files.write_text(path, "first, and longer")
    files.write_text(path, "grün 🙂\r\n")
    assert path.read_bytes() == "grün 🙂\r\n".encode()
    assert leftovers(path.parent) == ["c.txt"]


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"new, but not")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        files.write_bytes(path, half)
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == ["result.bin"]


def test_interrupted_write_leaves_nothing(tmp_path):
    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(tmp_path / "new.bin", interrupted)
    assert leftovers(tmp_path) == []


def test_written_files_and_folders_have_ordinary_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        files.write_text(tmp_path / "file", "x")
        with files.new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_json_is_readable_and_has_no_nan(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"é": [1, 2.5, None]})
    assert "é" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [1, 2.5, None]}


def test_new_folder_appears_only_when_complete(tmp_path):
    path = tmp_path / "parent" / "export"
    with files.new_folder(path) as work:
        (work / "part").write_text("1")
        assert not path.exists()
        assert work.parent == path.parent
    assert leftovers(path) == ["part"]
    assert leftovers(path.parent) == ["export"]


def test_failed_new_folder_leaves_nothing(tmp_path):
    def export():
        with files.new_folder(tmp_path / "export") as work:
            (work / "deep").mkdir()
            (work / "deep" / "part").write_text("1")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        export()
    assert leftovers(tmp_path) == []


def test_new_folder_does_not_replace_a_folder_with_files(tmp_path):
    path = tmp_path / "export"
    path.mkdir()
    (path / "mine").write_text("keep")
    with pytest.raises(OSError, match="not empty"), files.new_folder(path) as work:
        (work / "other").write_text("x")
    assert leftovers(path) == ["mine"]
    assert leftovers(tmp_path) == ["export"]


def hold_lock(path: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_of_another_process_holds_until_it_is_killed(tmp_path):
    path = tmp_path / "run" / ".lock"
    process = hold_lock(path)
    try:
        with (
            pytest.raises(UserError, match=r"^trained already$"),
            files.lock(path, wait=False, message="trained already"),
        ):
            pytest.fail("two processes hold one lock")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    # The lock ended with the process, although its file is still there.
    with files.lock(path, wait=False):
        pass
    with files.lock(path, wait=True):
        pass


def test_lock_is_released_when_its_block_raises(tmp_path):
    path = tmp_path / ".lock"
    with pytest.raises(RuntimeError), files.lock(path, wait=False):
        raise RuntimeError
    with files.lock(path, wait=False):
        pass


def test_require_writable_creates_an_empty_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    files.require_writable(folder, "the runs folder")
    assert leftovers(folder) == []


def test_require_writable_names_the_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "runs"
    with pytest.raises(UserError, match=r"the runs folder: cannot write to .*file/runs: Not a dir"):
        files.require_writable(folder, "the runs folder")
