"""Code that runs where this project cannot be imported: what a client has of an export."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

#: A process that has imported TensorFlow and nothing else, and forks for each request. It has
#: computed nothing, so that TensorFlow starts anew in each of them.
_SERVER = """
import json, os, sys, traceback
import tensorflow
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(asked["folder"])
            os.environ.update(asked["environment"])
            for number, name in enumerate(asked["files"], 1):
                os.dup2(os.open(name, os.O_WRONLY), number)
            sys.modules.update(dict.fromkeys(asked["banned"]))
            sys.argv = ["-c", *asked["arguments"]]
            exec(asked["code"], {"__name__": "__main__", "sys": sys})
            sys.stdout.flush()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(ended), flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process; it ends with this one, which holds its input open."""
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        cwd=tempfile.gettempdir(),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def stands_alone(
    code: str, *arguments: str, folder: Path, banned: Sequence[str] = (), **environment: str
) -> dict:
    """What ``code`` prints last, as JSON, where this project cannot be imported.

    In a process of its own that works in ``folder``; the modules ``banned`` are missing too.
    """
    files = [folder / "out.txt", folder / "err.txt"]
    for file in files:
        file.touch()
    asked = {
        "code": code,
        "arguments": arguments,
        "folder": str(folder),
        "banned": ["layers", "pipelines", *banned],
        "environment": environment,
        "files": [str(file) for file in files],
    }
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(asked), file=server.stdin, flush=True)
    status = int(server.stdout.readline())
    out, err = (file.read_text(encoding="utf-8") for file in files)
    assert status == 0, err
    return json.loads(out.splitlines()[-1])
