"""Load the trained model of a run."""

from __future__ import annotations

import keras

from pipelines.engine.core.commands import command
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.provenance import git_commit, package_versions
from pipelines.engine.runs.run import Run


def load_model(run: Run) -> keras.Model:
    """Load ``model.keras``.

    Raises:
        UserError: the run has no model yet, or another version of this project or its libraries
            saved one that this version cannot deserialize.
    """
    path = run.require("model.keras")
    try:
        return keras.models.load_model(path)
    # What Keras raises for an unknown class, another constructor or another weight shape.
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        info = run.info
        if (info.git_commit, info.versions) == (git_commit(), package_versions()):
            raise  # a defect: the same code saved the model
        commit = f" at commit {info.git_commit[:8]}" if info.git_commit else ""
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(
            f"run {run.id} was made by another version{commit}, and its model cannot be loaded by "
            f"this one ({type(error).__name__}: {reason}); train it again: "
            f"{command('train', run.task, name=info.registered_model)}"
        ) from error
