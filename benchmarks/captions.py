"""How long captions take and how good they are by beam: the test pictures of a run.

    python -m benchmarks.captions [--run ID]

1,000 pictures of the latest captioning run through its SavedModel, from the bytes of a file to
the caption: seconds, pictures a second and scores. Batches of 32 pictures; and one at a time.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

PICTURES, ALONE = 1000, 50
BEAMS = [1, 3, 5]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", metavar="ID", help="default: the latest finished run")
    options = parser.parse_args()

    from benchmarks.measure import Table, report
    from pipelines import export
    from pipelines.captioning import evaluation, records
    from pipelines.runs import Run

    run = Run.find("captioning", options.run)
    serve = export.load(run.need("savedmodel")).signatures["serving_default"]
    pictures = records.load(run.config()).test[:PICTURES]
    files, references = [p.file for p in pictures], [p.captions for p in pictures]
    table = Table(f"{len(files):,} pictures of {run.config().name}, by beam", BEAMS)
    for beam in BEAMS:
        decoding = run.config([f"decoding.beam_width={beam}"]).decoding
        evaluation.answers(serve, files[:32], decoding)  # traced, warm
        started = time.perf_counter()
        found = evaluation.answers(serve, files, decoding)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        for file in files[:ALONE]:
            serve(**evaluation.asked([file.read_bytes()], decoding))
        alone = (time.perf_counter() - started) / min(ALONE, len(files))
        measured = {
            "seconds": seconds,
            "pictures a second": len(files) / seconds,
            "one alone, ms": 1000 * alone,
        }
        table.add(beam, measured | evaluation.scores(found, references))
    report("captions", [table])


if __name__ == "__main__":
    main()
