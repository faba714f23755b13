"""What a finished run says of itself in sentences: how good it is, and what its limits are.

Everything is read from the run's folder, so that runs of older versions are summarized too.
"""

from __future__ import annotations

import html
import re

from pipelines.engine.config.schema import Experiment, Score, as_list
from pipelines.engine.core.commands import command, with_input
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.wording import count, listed, number, readable
from pipelines.engine.runs.info import RunInfo
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config

#: With fewer test records, the limits say that a score is uncertain.
_FEW = 100
#: The longest description of a model version that MLflow stores.
LONGEST_CARD = 5000


def headline(info: RunInfo, score: Score) -> list[str]:
    """Return the main test score with its interval, and how it compares with the baselines.

    Args:
        info: a finished run.
        score: the task's main metric.

    Returns:
        Sentences; empty if the run has no such score.
    """
    if score.name not in info.scores:
        return []
    interval = info.intervals.get(score.name)
    tested = info.data.records.get("test")
    sentence = f"Test {readable(score.name)} {number(info.scores[score.name])}"
    if interval is not None:
        low, high = interval
        sentence += f" (95 % interval {number(low)} to {number(high)})"
    if tested is not None:
        sentence += f" on {count(tested, 'record')}"
    sentence += f"; {'higher' if score.higher_is_better else 'lower'} is better."
    return [sentence, *(info.verdict or _beside_baselines(info, score))]


def _beside_baselines(info: RunInfo, score: Score) -> list[str]:
    """Compare the score with the best baseline, in a sentence."""
    if not info.baselines:
        return ["It was compared with no baseline."]
    choose = max if score.higher_is_better else min
    name = choose(info.baselines, key=lambda name: info.baselines[name])
    best, own = info.baselines[name], info.scores[score.name]
    low, high = info.intervals.get(score.name, (own, own))
    if low <= best <= high:
        verb = "cannot be told from"
    else:
        verb = "is better than" if choose(own, best) == own else "is worse than"
    several = len(info.baselines) > 1
    which = f"the best of {len(info.baselines)} baselines" if several else "the baseline"
    return [f"The model {verb} {which}, {readable(name)} ({number(best)})."]


def limits(run: Run) -> list[str]:
    """Return what a finished run was not tested on, and what its task says of its limits."""
    info = run.info
    tested = info.data.records.get("test")
    found = []
    if tested is not None:
        found.append(
            f"It was scored on {count(tested, 'record')} from {listed(_test_sources(run))}. How "
            "good it is on other data is not known."
        )
        if tested < _FEW:
            found.append("So few test records make its scores uncertain: others may give others.")
    found.append("It was trained once, with one seed; another seed gives other scores.")
    for name, source in info.data.sources():
        if unusable := sum(source.unusable.values()):
            found.append(
                f"{count(unusable, 'row')} of {source.rows:,} in {name} could not be used, and "
                "are neither in training nor in the test."
            )
    return [*found, *info.limits]


def _test_sources(run: Run) -> list[str]:
    """Return the sources that the test records are from."""
    config = _config(run)
    if config is None:
        return [name for name, _ in run.info.data.sources()]
    known, test = config.data.sources(), config.data.test
    # A text may also be a date, at which the test split begins.
    separate = [] if isinstance(test, float) else [s for s in as_list(test) if s in known]
    return separate or as_list(config.data.source)


def _config(run: Run) -> Experiment | None:
    """Return a run's config; None if this version cannot read it."""
    try:
        return run.config()
    except UserError:
        return None


def uses(run: Run) -> list[tuple[str, str]]:
    """Return the commands that use a finished run, each with what it does."""
    task, chosen = run.task, {"run": run.id}
    return [
        ("Answer an input", with_input(command("predict", task, **chosen))),
        ("Score it again", command("evaluate", task, **chosen)),
        ("Make it the champion of its model", command("promote", task, **chosen)),
        ("Copy it to exports/", command("export", task, **chosen)),
        ("Serve all exports over HTTP and gRPC", command("serve")),
        ("See all runs in MLflow", command("ui")),
    ]


def card(run: Run, description: str) -> str:
    """Return a short model card in Markdown.

    Args:
        run: a finished run.
        description: what the run says of itself in MLflow, in Markdown.
    """
    score = get_config(run.task).score
    rows = [
        f"| {markdown(readable(name))} | {number(value)} |"
        for name, value in run.info.scores.items()
    ]
    parts = [
        description,
        "\n".join(["**Limits**", "", *(f"- {markdown(limit)}" for limit in limits(run))]),
        "\n".join(["**Use**", "", *(f"    {line}" for _, line in uses(run)[:4])]),
        "\n".join([f"**All test scores** (the main one is {readable(score.name)})", "",
                   "| Score | Test |", "|---|---|", *rows]),
        f"Run `{run.id}`; its `report.html` is among the artifacts of the MLflow run.",
    ]  # fmt: skip
    text = "\n\n".join(parts)
    return text if len(text) <= LONGEST_CARD else text[: LONGEST_CARD - 1] + "…"


def markdown(text: str) -> str:
    """Escape the characters of a text that mean something in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(text, quote=False))
