"""Change one operator, number or decorator of the code at a time, and see whether a test fails.

    python -m benchmarks.mutants pipelines/engine/text --count 60

A mutant that no test notices has survived: a gap of the tests, or a change that makes no
difference. Mutants are drawn at random from all that Cosmic Ray (``make setup EXTRAS=mutation``)
makes of the given files; changes of type annotations, which have no effect, are left out. The unit
tests of the file's folder run until one fails.

Each mutant is tried in a process that is forked from one that has imported the libraries, but
nothing of this project. The mutant is given to Python's import in place of the file, so that the
files stay as they are. What a test starts as a process of its own is therefore not mutated.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[1]
#: Libraries that the tests import.
_LIBRARIES = (
    "tensorflow", "keras", "numpy", "scipy.stats", "pandas", "pyarrow.parquet", "hypothesis",
    "matplotlib.pyplot", "mlflow", "sklearn.metrics", "optuna", "PIL.Image", "pydantic", "pytest",
)  # fmt: skip
#: Tests of a room that need several rooms, and are therefore elsewhere.
_ALSO = {"runs": (ROOT / "tests/integration/test_tracking.py",)}
#: Operators that need arguments, or whose mutants are rarely different.
_LEFT_OUT = ("VariableReplacer", "VariableInserter")


@dataclass(frozen=True)
class Mutant:
    """A change of one file."""

    file: Path
    operator: str
    line: int
    change: str
    source: str


@dataclass(frozen=True)
class Outcome:
    """What the tests made of a mutant: ``killed``, ``survived`` or ``timeout``."""

    file: str
    line: int
    operator: str
    change: str
    outcome: str
    seconds: float


def places_of(file: Path) -> list[tuple[Path, str, int]]:
    """Return where each operator can change a file: the operator's name and the occurrence."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.operators.provider import OperatorProvider

    provider = OperatorProvider()
    nodes = list(ast_nodes(get_ast(file.read_text(encoding="utf-8"))))
    found = []
    for name in sorted(set(provider) - set(_LEFT_OUT)):
        operator = provider[name]()
        count = sum(1 for node in nodes for _ in operator.mutation_positions(node))
        found += [(file, name, occurrence) for occurrence in range(count)]
    return found


def draw(places: list[tuple[Path, str, int]], count: int, seed: int) -> Iterator[Mutant]:
    """Yield mutants of random places, without those that mean the same."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider

    provider = OperatorProvider()
    for file, name, occurrence in random.Random(seed).sample(places, len(places)):
        source = file.read_text(encoding="utf-8")
        made = mutate_code(source, provider[name](), occurrence)
        try:
            differs = _meaning(made) != _meaning(source)
        except SyntaxError:
            continue
        if differs:
            yield Mutant(file, name, *_difference(source, made), made)
            count -= 1
        if not count:
            return


def _meaning(source: str) -> str:
    """Return the syntax tree without annotations, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


def _difference(before: str, after: str) -> tuple[int, str]:
    """Return the first line that differs, and how."""
    old, new = before.splitlines(), after.splitlines()
    for tag, i, _, j, _ in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            kept = new[j].strip() if j < len(new) and tag != "delete" else "(removed)"
            return i + 1, f"{old[i].strip() if i < len(old) else ''}  →  {kept}"
    raise AssertionError("equal sources")


def tests_of(file: Path) -> list[str]:
    """Return the tests of a file's room, those that have the file's name first."""
    path = file.relative_to(ROOT)
    parts = path.parent.parts[1:] if path.parts[0] == "pipelines" else path.parent.parts
    folder = ROOT.joinpath("tests", "unit", *parts)
    while not list(folder.glob("test_*.py")):
        folder = folder.parent
    first = folder / f"test_{file.stem}.py"
    found = sorted(folder.glob("test_*.py"), key=lambda test: (test != first, test.stat().st_size))
    return [str(test) for test in [*found, *_ALSO.get(folder.name, ())]]


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a mutant in place of its file."""

    def __init__(self, module: str, mutant: Mutant) -> None:
        super().__init__(module, str(mutant.file))
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._mutant.source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutant where its module is imported."""

    def __init__(self, mutant: Mutant) -> None:
        self._loader = _Loader(_module(mutant.file), mutant)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._loader.name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self._loader.path, loader=self._loader
        )


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def start(mutant: Mutant) -> int:
    """Run the tests of a mutant in a forked process, which exits with 0 if all pass."""
    if process := os.fork():
        return process
    os.setsid()
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    sys.meta_path.insert(0, _Finder(mutant))
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    chosen = ["-m", "not browser and not jax and not thorough"]
    code = pytest.main([*options, *chosen, *tests_of(mutant.file)])
    os._exit(int(code))


def run(mutants: list[Mutant], workers: int, limit: float) -> Iterator[Outcome]:
    """Try mutants, several at a time; one that takes longer than ``limit`` seconds is ended."""
    waiting, running = list(mutants), dict[int, tuple[Mutant, float]]()
    while waiting or running:
        while waiting and len(running) < workers:
            mutant = waiting.pop(0)
            running[start(mutant)] = (mutant, time.monotonic())
        time.sleep(0.05)
        for process, (mutant, began) in list(running.items()):
            seconds = time.monotonic() - began
            ended, status = os.waitpid(process, os.WNOHANG)
            outcome = "killed" if status else "survived"
            if not ended:
                if seconds < limit:
                    continue
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
                outcome = "timeout"
            del running[process]
            yield Outcome(
                str(mutant.file.relative_to(ROOT)), mutant.line, mutant.operator, mutant.change,
                outcome, round(seconds, 1),
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, help="files, or folders of files")
    parser.add_argument("--count", type=int, default=50, help="how many mutants (default: 50)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds for a mutant's tests")
    parser.add_argument("--out", type=Path, help="a JSON file for all outcomes")
    args = parser.parse_args()
    given = [sorted(path.rglob("*.py")) if path.is_dir() else [path] for path in args.paths]
    files = [file.resolve() for some in given for file in some]
    every = [place for file in files for place in places_of(file)]
    chosen = list(draw(every, args.count, args.seed))
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.dont_write_bytecode = True
    for library in _LIBRARIES:
        importlib.import_module(library)
    outcomes = []
    for outcome in run(chosen, args.workers, args.limit):
        outcomes.append(outcome)
        where = f"{outcome.file}:{outcome.line}"
        print(
            f"{outcome.outcome:8} {outcome.seconds:6.1f} s  {where}  {outcome.change}", flush=True
        )
    killed = sum(outcome.outcome != "survived" for outcome in outcomes)
    share = 100 * killed / len(outcomes)
    print(f"{killed} of {len(outcomes)} mutants killed ({share:.0f} %), at {len(every):,} places")
    if args.out:
        args.out.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    main()
