"""Stage the build context of a container image that serves an export."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import new_folder
from pipelines.engine.core.paths import home

#: Which server the image contains.
Kind = Literal["unfold", "tensorflow-serving"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: The project, whose files go into an image.
_ROOT = Path(__file__).parents[2]
_IGNORED = shutil.ignore_patterns("__pycache__")
#: The config of TensorFlow Serving. Its path is also in the Dockerfile.
_MODEL_CONFIG = """\
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
}}
"""


@dataclass(frozen=True)
class Context:
    """A folder that an image is built from.

    Attributes:
        folder: The folder, with its ``Dockerfile``.
        tag: The name of the image.
    """

    folder: Path
    tag: str

    def build_command(self, builder: str) -> list[str]:
        """Return the command that builds the image with ``docker`` or ``podman``."""
        return [builder, "build", "--tag", self.tag, str(self.folder)]


def stage(name: str, kind: Kind) -> Context:
    """Copy the newest version of an export, and what serves it, to ``build/images/``.

    Args:
        name: The model, which has an export.
        kind: The server of the image.

    Returns:
        The context, which replaces an earlier one.

    Raises:
        UserError: The files of the project are not there.
    """
    if not (_ROOT / ".docker").is_dir():
        raise UserError(f"images are built from the project's folder, and {_ROOT} is not that")
    export = _newest(home() / "exports" / name)
    version = export.name
    folder = home() / "build" / "images" / f"{name}-{kind}"
    if folder.exists():
        shutil.rmtree(folder)
    with new_folder(folder) as context:
        shutil.copyfile(_ROOT / ".docker" / f"{kind}.Dockerfile", context / "Dockerfile")
        if kind == "unfold":
            _add_server(context)
            shutil.copytree(export, context / "exports" / name / version)
        else:
            shutil.copytree(export, context / "models" / name / version)
            config = _MODEL_CONFIG.format(name=name)
            (context / "models" / "models.config").write_text(config, encoding="utf-8")
        _make_readable(context)
    suffix = "" if kind == "unfold" else f"-{kind}"
    return Context(folder, f"{name.lower()}:{version}{suffix}")


def _newest(exports: Path) -> Path:
    versions = [path for path in exports.glob("[0-9]*") if path.name.isdecimal()]
    return max(versions, key=lambda path: int(path.name))


def _add_server(context: Path) -> None:
    """Add the code of the server, its config and its requirements."""
    shutil.copytree(_ROOT / "pipelines", context / "pipelines", ignore=_IGNORED)
    (context / "configs").mkdir()
    shutil.copyfile(_ROOT / "configs" / "serving.yaml", context / "configs" / "serving.yaml")
    (context / "requirements").mkdir()
    for source in (".docker/server.txt", ".docker/grpc.txt", "requirements/cpu.txt"):
        shutil.copyfile(_ROOT / source, context / "requirements" / Path(source).name)


def _make_readable(context: Path) -> None:
    """Let the image's user read all files, whatever the umask of the one who builds it."""
    for path in context.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
