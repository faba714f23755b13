"""Measure the speed of translation on a run's test texts.

    python -m benchmarks.decoding [--run ID]

Translate 1,000 test texts with the SavedModel of the latest run, greedily and with wider beams, in
batches of 64 texts of similar length (as in scoring) and one at a time; report seconds, texts per
second and BLEU.
"""

import argparse
import csv
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

TEXTS, ALONE = 1000, 50
BEAMS = [1, 2, 5, 10]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", metavar="ID", help="default: the latest finished run")
    options = parser.parse_args()

    from benchmarks.measure import Table, report
    from pipelines.engine.export import savedmodel
    from pipelines.engine.runs.run import Run
    from pipelines.engine.tasks.encoder_decoder import decoding_request
    from pipelines.translation import evaluation

    run = Run.find("translation", options.run)
    serve = savedmodel.load(run.require("savedmodel")).signatures["serving_default"]
    with (run.folder / "tables" / "translations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:TEXTS]
    texts, references = [r["input"] for r in rows], [r["reference"] for r in rows]
    table = Table(f"{len(texts):,} texts of {run.config().name}, by beam", BEAMS)
    for beam in BEAMS:
        decoding = run.config([f"decoding.beam_width={beam}"]).decoding
        evaluation.answers(serve, texts[:64], decoding)  # traced, warm
        started = time.perf_counter()
        found = evaluation.answers(serve, texts, decoding)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        for text in texts[:ALONE]:
            serve(**decoding_request("text", [text], decoding))
        alone = (time.perf_counter() - started) / min(ALONE, len(texts))
        measured = {
            "seconds": seconds,
            "texts a second": len(texts) / seconds,
            "one alone, ms": 1000 * alone,
            "BLEU": evaluation.scores(found, references)[0]["bleu"],
        }
        table.add(beam, measured)
    report("decoding", [table])


if __name__ == "__main__":
    main()
