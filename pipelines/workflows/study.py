"""The workers of a search, and the storage that they share.

Optuna proposes what to try (TPE, Bergstra et al. 2011) and prunes by the median of the trials
before (Golovin et al. 2017). What was tried is in one storage, a journal file or a database, that
any number of workers use at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core import _compat, signals
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import TrainingError, UserError
from pipelines.engine.core.files import lock
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.run import Run
from pipelines.workflows.search_space import Space, format_value, overrides_of

optuna.logging.set_verbosity(optuna.logging.ERROR)

#: Who asked for a trial, and why one failed: attributes of Optuna's trials.
_PLACE, REASON = "place", "reason"
#: The name of the monitored score, and the best of a trial. Optuna's own value of a trial has its
#: sign turned where lower is better, because a study begins before any training can say so.
MONITOR, BEST = "monitor", "best"


class Searcher:
    """The workers of this process: each asks for a trial, trains it, and tells how good it is.

    Args:
        make: the config of a trial, from its overrides and its name.
        total: no new trial is begun where there are so many.
    """

    def __init__(
        self,
        *,
        group: Group,
        space: Space,
        make: Callable[[list[str], str], Experiment],
        total: int,
        storage: str | None,
        worker: Sequence[str],
        console: Console,
    ) -> None:
        self._group, self._space, self._make = group, space, make
        self._total, self._worker, self._console = total, worker, console
        self._own = storage is None
        self._place = f"{socket.gethostname()}:{group.folder}"
        self._where = storage or str(group.folder / "journal.log")
        self._ending = threading.Event()
        self._study()  # a storage that cannot be used is noticed here

    @property
    def trials(self) -> list[FrozenTrial]:
        """All there are, whoever made them."""
        return list(self._study().trials)

    def _study(self) -> optuna.Study:
        """The study; each thread has an object of its own."""
        pruning = self._space.pruning
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if pruning is not None:
            pruner = optuna.pruners.MedianPruner(pruning.startup, pruning.warmup)
        try:
            return optuna.create_study(
                storage=_storage(self._where),
                study_name=self._group.name,
                direction="maximize",
                sampler=Proposer(self._space.seed, self._space.random),
                pruner=pruner,
                load_if_exists=True,
            )
        except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(f"the storage of the sweep cannot be used: {reason}") from None

    def work(self, workers: int) -> None:
        """Until there are as many trials as there shall be."""
        wrong: list[BaseException] = []

        def run() -> None:
            try:
                self._run_trials()
            except BaseException as error:  # noqa: BLE001 (raised again below)
                wrong.append(error)
                self._ending.set()

        threads = [threading.Thread(target=run, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # not for good: a signal would never be seen
        if wrong:
            raise next((e for e in wrong if isinstance(e, KeyboardInterrupt)), wrong[0])

    def _run_trials(self) -> None:
        study = self._study()
        while not self._ending.is_set():
            signals.check()
            with contextlib.ExitStack() as locks:
                with lock(self._group.folder / ".lock", wait=True):
                    trial = self._next(study, locks)
                if trial is None:
                    return
                self._train_trial(study, trial)

    def _next(self, study: optuna.Study, locks: contextlib.ExitStack) -> optuna.Trial | None:
        """Return an interrupted trial or a new one; `locks` keeps it from other processes."""
        trials = study.get_trials(deepcopy=False)
        for left in trials:
            place = left.user_attrs.get(_PLACE, self._place if self._own else None)
            if left.state == TrialState.RUNNING and place == self._place:
                try:
                    locks.enter_context(self._lock(left.number))
                except UserError:
                    continue  # another process is at it
                return optuna.Trial(study, _compat.optuna_trial_id(left))
        if len(trials) >= self._total:
            return None
        trial = study.ask()
        trial.set_user_attr(_PLACE, self._place)
        locks.enter_context(self._lock(trial.number))
        return trial

    def _lock(self, number: int) -> contextlib.AbstractContextManager[None]:
        return lock(self._group.folder / "locks" / str(number), wait=False, message="in work")

    def _train_trial(self, study: optuna.Study, trial: optuna.Trial) -> None:
        name = f"trial-{trial.number:04d}"
        for key, axis in self._space.keys.items():
            axis.suggest(trial, key)
        chosen = "  ".join(f"{key}={format_value(value)}" for key, value in trial.params.items())
        self._console.say(f"{name}  {chosen}")
        try:
            run = self._group.runs().get(name)
            if run is None or run.info.status not in ("tried", "pruned", "finished"):
                run = self._train(trial, name, self._config(trial, name))
        except TrainingError as error:
            trial.set_user_attr(REASON, str(error))
            self._console.warn(f"{name} failed: {error}")
            study.tell(trial, state=TrialState.FAIL)
            return
        info = run.info
        trial.set_user_attr(MONITOR, info.monitor)
        trial.set_user_attr(BEST, info.best)
        if info.status == "pruned":
            self._console.say(f"{name}  pruned after epoch {len(run.history)}")
            study.tell(trial, state=TrialState.PRUNED)
        else:
            self._console.say(f"{name}  {info.monitor} {info.best:.4f}")
            study.tell(trial, info.best_rank)

    def _config(self, trial: optuna.Trial, name: str) -> Experiment:
        try:
            return self._make(overrides_of(trial.params), name)
        except UserError as error:  # each key is allowed, but not with the others
            raise TrainingError(str(error)) from None

    def _train(self, trial: optuna.Trial, name: str, config: Experiment) -> Run:
        reported = trial.storage.get_trial(_compat.optuna_trial_id(trial)).intermediate_values

        def on_epoch(report: dict[str, Any]) -> bool:
            epoch = report["epoch"]
            self._console.say(
                f"  {name}  epoch {epoch}/{report['epochs']}  {report['monitor']} "
                f"{report['value']:.4f}  {report['seconds']:.1f} s"
            )
            if epoch not in reported:  # done again, because the trial was left in its middle
                trial.report(report["rank"], epoch)
            return epoch == report["epochs"] or not trial.should_prune()

        return self._group.train(
            name,
            config,
            trial=True,
            worker=self._worker,
            on_epoch=on_epoch,
            console=self._console,
        )


class Proposer(optuna.samplers.BaseSampler):
    """TPE that draws from the seed and the number of a trial alone.

    So a search that was interrupted goes on as if it had not been, and workers do not draw alike.

    Args:
        seed: of all draws.
        startup: trials that are drawn at random before any is proposed.
    """

    def __init__(self, seed: int, startup: int) -> None:
        self._seed, self._startup = seed, startup
        self._tpe = optuna.samplers.TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        drawn = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._tpe = optuna.samplers.TPESampler(
                seed=int(drawn), n_startup_trials=self._startup, constant_liar=True
            )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


class _Lock(JournalFileOpenLock):
    """A lock of the journal that dies with its process; Optuna's own would be left behind."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, threading.local()

    def acquire(self) -> bool:
        self._held.stack = contextlib.ExitStack()
        self._held.stack.enter_context(lock(self._path, wait=True))
        return True

    def release(self) -> None:
        self._held.stack.close()


def _storage(where: str) -> optuna.storages.BaseStorage:
    """Of a database's URL, or a journal file."""
    if "://" in where:
        return optuna.storages.RDBStorage(where)
    path = Path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = JournalFileBackend(where, lock_obj=_Lock(path.with_name(f".{path.name}.lock")))
    return optuna.storages.JournalStorage(backend)
