"""Generate the tables of keys in the documentation: ``make reference``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from pipelines.engine.config import reference
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.files import write_text
from pipelines.engine.tasks.catalog import BUILT_IN, get_config
from pipelines.serving.config import ServingConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "configuration.md", DOCS / "serving.md")


def configs() -> dict[str, type[BaseModel]]:
    """Return the config classes by the names in the pages' markers."""
    tasks: dict[str, type[BaseModel]] = {name: get_config(name) for name in BUILT_IN}
    return {"every-task": Experiment, **tasks, "serving": ServingConfig}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages; with ``--check``, only report whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date")
    check = parser.parse_args(arguments).check
    code = 0
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = reference.update(old, configs())
        if new == old:
            continue
        print(f"{page.name}: {'out of date; run: make reference' if check else 'updated'}")
        if check:
            code = 1
        else:
            write_text(page, new)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
