"""The image's server: the staged files, its entry point, and nothing else of the project.

No container is built. The last test comes close: the process is number 1, without capabilities, and
only /tmp can be written to.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement

from pipelines.workflows import image
from tests.support import ROOT
from tests.support.dockerfile import entry_point, environment, health_check
from tests.support.servers import export

pytestmark = pytest.mark.thorough

#: Hides the packages that the image lacks. Python imports it when it starts.
HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"not in the image: {{name}}", name=name)

sys.meta_path.insert(0, Hide())
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_in_image(requirements: Path) -> set[str]:
    """The distributions that pip installs from the files of requirements."""
    lines = (requirements / "server.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if not line.startswith("#")]
    found = {"tensorflow-serving-api"}  # without its dependencies
    while wanted:
        requirement = wanted.pop()
        name = canonical(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        wanted += map(Requirement, metadata.requires(name) or [])
    return found


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Path:
    """The staged files at another place, as in the image."""
    home = tmp_path_factory.mktemp("home")
    export(home / "exports" / "tiny" / "4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOLD_HOME", str(home))
        staged = image.stage("tiny", "unfold")
    return Path(shutil.copytree(staged.folder, tmp_path_factory.mktemp("image") / "srv"))


@pytest.fixture(scope="module")
def hiding(context, tmp_path_factory) -> Path:
    """A folder for the path of Python, which hides what the image lacks."""
    there = installed_in_image(context / "requirements")
    hidden = {
        module
        for module, distributions in metadata.packages_distributions().items()
        if not there & set(map(canonical, distributions))
    }
    assert {"mlflow", "sklearn", "matplotlib"} <= hidden
    folder = tmp_path_factory.mktemp("hiding")
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=hidden - {"pipelines", "layers"}))
    return folder


def free_ports() -> list[int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as other:
        return [one.getsockname()[1], other.getsockname()[1]]


class Served:
    """The image's process.

    Args:
        context: the staged files.
        at: where the process sees them.
        path: a further folder for the path of Python.
        before: words before the command.
    """

    def __init__(self, context: Path, at: Path, path: Path, *before: str) -> None:
        dockerfile = context / "Dockerfile"
        self.port, grpc = free_ports()
        python, *words = entry_point(dockerfile)
        assert python == "python"
        inside = {
            name: value.replace("/srv/unfold", str(at))
            for name, value in environment(dockerfile).items()
        }
        inside["PYTHONPATH"] = f"{path}{os.pathsep}{inside['PYTHONPATH']}"
        self.process = subprocess.Popen(
            [*before, sys.executable, *words, "--port", str(self.port), "--grpc-port", str(grpc)],
            cwd=context, env={"PATH": os.environ["PATH"]} | inside,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        #: The health check as Docker runs it, for the port that this process has.
        self.health = [w.replace("8501", str(self.port)) for w in health_check(dockerfile)]

    def is_healthy(self) -> bool:
        command = [sys.executable if w == "python" else w for w in self.health]
        return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0

    def wait_until_ready(self) -> None:
        for _ in range(600):
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            try:
                if requests.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.2)
        pytest.fail("not ready")

    def predict(self) -> list[float]:
        answer = requests.post(
            f"http://127.0.0.1:{self.port}/v1/models/tiny:predict",
            json={"signature_name": "checked", "instances": [1.0, 2.0]},
        )
        found: list[float] = answer.json()["predictions"]
        return found


@pytest.fixture
def stopped_at_the_end() -> Iterator[list[Served]]:
    servers: list[Served] = []
    yield servers
    for server in servers:
        server.process.kill()
        server.process.communicate()


def test_the_entry_point_serves_with_the_packages_of_the_image(context, hiding, stopped_at_the_end):
    before = set(context.rglob("*"))
    served = Served(context, context, hiding)
    stopped_at_the_end.append(served)
    assert not served.is_healthy(), "nothing listens yet"
    served.wait_until_ready()
    assert served.is_healthy()
    assert served.predict() == [1.0, 2.0]
    serving = ROOT / ".docker" / "tensorflow-serving.Dockerfile"
    check = [word.replace("8501", str(served.port)) for word in health_check(serving)]
    assert subprocess.run(check).returncode == 0
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == -signal.SIGTERM
    assert not served.is_healthy()
    assert subprocess.run(check, stderr=subprocess.DEVNULL).returncode != 0
    assert set(context.rglob("*")) == before


def can_isolate() -> bool:
    """Whether this user may make namespaces as a container has."""
    tools = all(map(shutil.which, ("unshare", "setpriv", "mount")))
    return (
        tools
        and not subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/tmp"],
            capture_output=True,
        ).returncode
    )


#: Shows the context at /srv, makes every file system read-only but a new /tmp, and drops all
#: capabilities.
ISOLATE = r"""
mount -o bind "$1" /srv && cd /srv
awk '{print $2}' /proc/self/mounts | while read -r point; do
  case $point in /proc*|/dev*|/sys*) ;; *) mount -o remount,bind,ro "$point" ;; esac
done
touch /srv/file 2>/dev/null && exit 99
mount -t tmpfs none /tmp
shift
exec setpriv --inh-caps=-all --bounding-set=-all --no-new-privs "$@"
"""


@pytest.mark.skipif(not can_isolate(), reason="needs the right to make namespaces")
def test_the_server_runs_without_rights_as_process_1_on_read_only_files(
    context, stopped_at_the_end
):
    at = Path("/srv")
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ISOLATE, "sh"]
    served = Served(context, at, at, *unshare, str(context))
    stopped_at_the_end.append(served)
    served.wait_until_ready()
    assert served.predict() == [1.0, 2.0]
    outer = served.process.pid
    (inner,) = map(int, Path(f"/proc/{outer}/task/{outer}/children").read_text().split())
    status = Path(f"/proc/{inner}/status").read_text()
    assert re.search(r"^NSpid:.*\t1$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    os.kill(inner, signal.SIGTERM)
    # The kernel ignores the signal that would end process 1, so the server exits by itself.
    assert served.process.wait(60) == 0
