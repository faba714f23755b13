"""The code and the machine that a run is made with."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

#: Distributions whose versions are recorded, by their keys in ``run.json``.
_DISTRIBUTIONS = {
    # The key of version 0.1, whose distribution had this name.
    "unfold": "unfold-rnn",
    "keras": "keras",
    "tensorflow-cpu": "tensorflow-cpu",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "numpy": "numpy",
    "mlflow": "mlflow",
}


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the main packages that are installed."""
    versions = {"python": platform.python_version()}
    for key, distribution in _DISTRIBUTIONS.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[key] = metadata.version(distribution)
    return versions


def git_commit() -> str | None:
    """Return the commit of this project, with ``+`` if files were changed since.

    Returns:
        None outside a checkout of this project.
    """
    here = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # Fails if this file is installed in a virtual environment inside another repository.
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> str:
    """Describe this machine: its architecture and number of cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores"
