"""Measure the speed and scores of captioning by beam width on a run's test images.

    python -m benchmarks.captions [--run ID]
    python -m benchmarks.captions --scores ID ID ...

Caption 1,000 test images with the SavedModel of the latest run, from the bytes of a file to the
caption, in batches of 32 and one at a time; report seconds, images per second and scores. With
``--scores``, report only the scores of several runs, from the features cached during training.
"""

import argparse
import itertools
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

PICTURES, ALONE, ROWS = 1000, 50, 32
BEAMS = [1, 3, 5]


def captions(run, pictures, beam):
    """Return the captions of a run's model for images with cached features."""
    import keras
    import tensorflow as tf

    from pipelines.captioning.task import TASK, CaptioningServing
    from pipelines.engine.core.paths import home
    from pipelines.engine.models.feature_cache import Features

    config = run.config()
    processor = TASK.processor.load(run.require("processor"))
    model = keras.models.load_model(run.require("model.keras"))
    narrator = CaptioningServing(config, processor, model)
    kept = Features(model.encoder, config.model.encoder.size, home() / "features")
    kept.prepare([(p.digest, p.file) for p in pictures])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def say(paths):
        told = model.encode(tf.cast(kept.load(paths), tf.float32))
        readable = tf.ones_like(paths, tf.bool)
        most = tf.constant([config.decoding.max_length])
        found = narrator.search(readable, *told, tf.constant([beam]), most)
        return processor.detokenize(found.ids[:, 0])

    paths = [str(kept.path(p.digest)) for p in pictures]
    some = (say(tf.constant(paths[i : i + ROWS])) for i in range(0, len(paths), ROWS))
    return [text.decode() for texts in some for text in texts.numpy()]


def scores(runs):
    """Print the scores of several runs by beam width."""
    from benchmarks.measure import Table, report
    from pipelines.captioning import evaluation, records

    pictures = records.load(runs[0].config()).test[:PICTURES]
    references = [p.captions for p in pictures]
    cases = [(run.config().name, beam) for run in runs for beam in BEAMS]
    table = Table(f"{len(pictures):,} pictures, by run and beam", cases)
    for run, beam in itertools.product(runs, BEAMS):
        table.add(None, evaluation.scores(captions(run, pictures, beam), references))
    report("captions_by_cell", [table])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", metavar="ID", help="default: the latest finished run")
    parser.add_argument("--scores", metavar="ID", nargs="+", help="score only, for these runs")
    options = parser.parse_args()

    from pipelines.engine.runs.run import Run

    if options.scores:
        scores([Run.find("captioning", name) for name in options.scores])
        return

    from benchmarks.measure import Table, report
    from pipelines.captioning import evaluation, records
    from pipelines.engine.export import savedmodel
    from pipelines.engine.tasks.encoder_decoder import decoding_request

    run = Run.find("captioning", options.run)
    serve = savedmodel.load(run.require("savedmodel")).signatures["serving_default"]
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
            serve(**decoding_request("image", [file.read_bytes()], decoding))
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
