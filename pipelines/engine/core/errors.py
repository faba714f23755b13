"""What a user did wrong, said in one line."""


class UserError(Exception):
    """A mistake in a config, a file or a command. Printed without a traceback; exit code 2.

    The message names where it is (``file:line``), what was found and what is allowed.
    """


class TrainingError(Exception):
    """Training itself went wrong (a loss that is not finite). Printed in one line; exit code 1."""


class ProcessLostError(TrainingError):
    """Another process of the training is gone."""
