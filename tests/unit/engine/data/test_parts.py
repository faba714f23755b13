"""A file in parts: complete or absent, and resumed for the same job only."""

from __future__ import annotations

import json

import pytest

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.parts import Parts

JOB = {"input": "a", "run": "1"}


def join(parts, file):
    for part in parts:
        file.write(part.read_bytes())


def start(out, job=JOB, count=2):
    """Write the first parts of a file, and stop."""
    parts = Parts(out, job)
    with parts.opened():
        for i in range(count):
            parts.add(lambda file, i=i: file.write(b"%d\n" % i), {"inputs": i + 1})


def test_a_file_goes_on_after_its_last_part(tmp_path):
    out = tmp_path / "out.csv"
    start(out)
    assert not out.exists()
    parts = Parts(out, JOB)
    with parts.opened():
        assert (parts.progress, parts.changed) == ({"inputs": 2}, [])
        parts.add(lambda file: file.write(b"2\n"), {"inputs": 3})
        parts.finish(join)
    assert out.read_bytes() == b"0\n1\n2\n"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("job", [{"input": "b", "run": "1"}, {"input": "b", "run": "2"}])
def test_another_job_starts_anew(tmp_path, job):
    out = tmp_path / "out.csv"
    start(out)
    parts = Parts(out, job)
    with parts.opened():
        assert parts.progress == {}
        assert parts.changed == [name for name in JOB if JOB[name] != job[name]]
        parts.add(lambda file: file.write(b"new\n"), {"inputs": 1})
        parts.finish(join)
    assert out.read_bytes() == b"new\n"


def test_a_part_that_was_not_recorded_is_written_again(tmp_path):
    """As when the process is killed between a part and its record, or within either."""
    out = tmp_path / "out.csv"
    start(out)
    folder = tmp_path / ".out.csv.parts"
    (folder / "part-00000002").write_bytes(b"of the killed process")
    (folder / ".part-00000003.abcdefgh").write_bytes(b"half")
    parts = Parts(out, JOB)
    with parts.opened():
        assert parts.progress == {"inputs": 2}
        parts.add(lambda file: file.write(b"2\n"), {"inputs": 3})
        parts.finish(join)
    assert out.read_bytes() == b"0\n1\n2\n"


def test_a_failed_part_leaves_those_before_and_names_the_file(tmp_path):
    out = tmp_path / "out.csv"
    start(out)
    parts = Parts(out, JOB)

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with parts.opened(), pytest.raises(OSError, match="No space") as error:
        parts.add(fail, {"inputs": 3})
    assert error.value.filename == str(out)
    assert parts.progress == {"inputs": 2}
    state = json.loads((tmp_path / ".out.csv.parts" / "progress.json").read_text())
    assert state["parts"] == 2


def test_two_processes_do_not_write_one_file(tmp_path):
    out = tmp_path / "out.csv"
    with Parts(out, JOB).opened(), pytest.raises(UserError, match="another process"):
        Parts(out, JOB).opened().__enter__()
