"""Exit codes and error messages of the command-line process."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from typing import NoReturn

from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import DriftError, TrainingError, UserError
from pipelines.engine.training import cluster

INTERRUPTED = 130
#: Error numbers of a disk that is full or read-only.
_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)


def finish(work: Callable[[], None], console: Console) -> NoReturn:
    """Call ``work`` and end this process; errors of the user are printed in one line."""
    try:
        code = _exit_code(work, console)
    except Exception:  # noqa: BLE001 (a defect of this program; Python would show it the same way)
        traceback.print_exc()
        code = 1
    cluster.exit_process(code)


def _exit_code(work: Callable[[], None], console: Console) -> int:
    try:
        work()
    except UserError as error:
        console.error(str(error))
        return 2
    except (TrainingError, DriftError) as error:
        console.error(str(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}cannot be written: {error.strerror}")
        return 1
    return 0
