"""Exit codes and error messages of the command-line process."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from typing import NoReturn

from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import TrainingError, UserError
from pipelines.engine.training import cluster

INTERRUPTED = 130


#: What a disk says that is full, or that nobody may write to.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def finish(work: Callable[[], None], console: Console) -> NoReturn:
    """Do it, and end this process; a mistake is told in one line."""
    try:
        code = _done(work, console)
    except Exception:  # noqa: BLE001 (a defect of this program, which it shows as Python does)
        traceback.print_exc()
        code = 1
    cluster.end(code)


def _done(work: Callable[[], None], console: Console) -> int:
    """Do it; the exit code."""
    try:
        work()
    except UserError as error:
        console.error(str(error))
        return 2
    except TrainingError as error:
        console.error(str(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}cannot be written: {error.strerror}")
        return 1
    return 0
