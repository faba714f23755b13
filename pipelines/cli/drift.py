"""``unfold drift``."""

from __future__ import annotations

import argparse
import math

from pipelines.cli.options import Commands, add_command, add_run_of_config, add_set
from pipelines.cli.output import print_json
from pipelines.cli.selection import find_answering_run, select_device
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import DriftError
from pipelines.engine.data.preview import given_source


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    summary = "Compare new data with what a run saw in training."
    parser = add_command(commands, "drift", run, summary)
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="the new data, of the format of the run's"
    )
    add_run_of_config(parser)
    add_set(parser)
    parser.add_argument(
        "--fail-above",
        type=_positive,
        metavar="PSI",
        help="exit code 1 if the PSI of a feature is above this, and not by chance, e.g. 0.25",
    )


def run(args: argparse.Namespace, console: Console) -> None:
    """Print what moved, feature by feature.

    Raises:
        DriftError: a feature is above ``--fail-above``.
    """
    source = given_source(args.data)
    trained = find_answering_run(args, console)
    config = trained.config(args.set)
    select_device(config.device, console)
    from pipelines.workflows import drift_report
    from pipelines.workflows.drift import compare

    found = compare(trained, config, source, console)
    for note in found.report.get("notes", []):
        console.warn(note)
    for name, counts in drift_report.sources(found).items():
        if unusable := sum(counts["unusable"].values()):
            console.warn(f"{name}: {unusable:,} of {counts['rows']:,} rows skipped, the first:")
            for line in counts["first_unusable"]:
                console.say(f"  {line}")
    if args.json:
        print_json(drift_report.to_dict(found, trained, args.data))
    else:
        digest, shown = found.digest, drift_report.table(found)
        title = (
            f"{args.data}: {found.used:,} of {found.records:,} records beside {digest.used:,} of "
            f"the {digest.split} split of run {trained.id}"
        )
        console.table(title, shown.columns, shown.rows)
        for sentence in drift_report.sentences(found):
            print(sentence)
    if args.fail_above is not None:
        above = [f for f in found.features if f.drift.exceeds(args.fail_above)]
        if above:
            named = ", ".join(f"{f.name} {f.drift.psi:.3f}" for f in above)
            raise DriftError(f"PSI above {args.fail_above:g} (--fail-above): {named}")


def _positive(text: str) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, e.g. 0.25, not {text!r}")
    return value
