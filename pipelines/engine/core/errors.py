"""Errors shown to the user without a traceback."""


class UserError(Exception):
    """An error in a config, a file or a command; exit code 2.

    The message is one line that names the location (``file:line``), what was found and what is
    allowed.
    """


class TrainingError(Exception):
    """Training failed, e.g. because the loss is not finite; exit code 1."""


class DriftError(Exception):
    """New data differs more from that of training than allowed; exit code 1."""


class ProcessLostError(TrainingError):
    """Another process of a distributed training has ended."""
