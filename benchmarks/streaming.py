"""Measure the time of a streaming step in the server and at the client.

    python -m benchmarks.streaming

The models have the sizes of the configs (sentiment `live`, generation and forecasting `default`)
and random weights; they are exported like runs and served by a real server process. A client sends
one word, note request or price at a time and waits for the answer; then 16 clients do so at once.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
from websockets.asyncio.client import connect

from benchmarks.measure import Table, report
from pipelines.engine.config import loader as configs
from pipelines.engine.export import savedmodel
from pipelines.engine.tasks.catalog import get_config, get_task
from pipelines.engine.text.tokenizer import DocumentTokenizer
from pipelines.forecasting import model as forecasters
from pipelines.forecasting.processor import Scales
from pipelines.forecasting.series import Series, SeriesSlice
from pipelines.sentiment.processor import TextClasses

CONFIGS = Path(__file__).parents[1] / "configs"
STEPS, TOGETHER = 1000, 16
WORDS = [f"word{i}" for i in range(29_998)]
TUNE = "X:1\nT:A tune\nM:4/4\nL:1/8\nK:G\nABcd efga|BAGF EDCB|\n"


def models():
    """Return ``(config, processor, model)`` for each task with a ``step`` signature."""
    config = configs.load(CONFIGS / "sentiment/live.yaml", get_config("sentiment"), [])
    processor = TextClasses(config.text, WORDS, ["negative", "positive"])
    yield config, processor, get_task("sentiment").build(config, processor)
    config = configs.load(CONFIGS / "generation/default.yaml", get_config("generation"), [])
    processor = DocumentTokenizer.fit([TUNE] * config.text.min_count, config.text, "character")
    yield config, processor, get_task("generation").build(config, processor)
    config = configs.load(CONFIGS / "forecasting/default.yaml", get_config("forecasting"), [])
    columns = 1 + len(config.data.columns) + 2 * len(config.data.ratios)
    rng = np.random.default_rng(0)
    values = 100 * np.exp(np.cumsum(0.01 * rng.normal(size=(400, columns)), axis=0))
    series = Series("A", np.arange(400) * 86_400 * 1_000_000, values, "A:1")
    processor = Scales.fit(config, [SeriesSlice(series, 0, 300)], [SeriesSlice(series, 300, 400)])
    yield config, processor, forecasters.build(config, processor.arrays, seed=1)


def export(folder, config, processor, model):
    """Write a SavedModel; return its endpoints."""
    model.build(None)
    endpoints = get_task(config.task).endpoints(config, processor, model)
    savedmodel.write(folder, model, endpoints, processor.resources())
    return endpoints


def row(task, specs, step):
    """Return the next inputs of a stream."""
    price = [[100.0 + np.sin(step)] * (specs["history"].shape[-1] if "history" in specs else 1)]
    known = {
        "text": WORDS[step % 500] + " " if task == "sentiment" else "",
        "temperature": 0.8, "max_length": 1, "seed": 1, "history": price, "lengths": 1,
        "series": "A", "time": [step * 86_400], "paths": 100,
        "future": [(step + i) * 86_400 for i in range(1, 100)],
    }  # fmt: skip
    given = {name: known[name] for name in specs if not name.startswith("state_")}
    if "future" in given:
        given["future"] = given["future"][: specs["future"].shape[-1] or 5]
    return json.dumps(given)


async def client(address, task, specs, steps):
    seconds = []
    async with connect(f"ws://{address}/v1/models/{task}:stream") as socket:
        for step in range(steps):
            message = row(task, specs, step)
            started = time.perf_counter()
            await socket.send(message)
            answer = json.loads(await socket.recv())
            seconds.append(time.perf_counter() - started)
            assert "error" not in answer, answer
    return seconds


async def together(address, task, specs):
    found = await asyncio.gather(
        *(client(address, task, specs, STEPS // TOGETHER) for _ in range(TOGETHER))
    )
    return [s for one in found for s in one]


def inside(address, task):
    """Return the sum and count of the server's step times, and how many took up to 1 ms."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        text = answer.read().decode()

    def value(what):
        found = re.search(rf'^unfold_step_seconds_{what}model="{task}"}} (\S+)$', text, re.M)
        return float(found[1]) if found else 0.0

    return np.array([value("sum{"), value("count{"), value('bucket{le="0.001",')])


def main():
    tasks = ["sentiment", "generation", "forecasting"]
    tables = [
        Table("One stream, ms a step (share: %)", tasks),
        Table(f"{TOGETHER} streams at once, ms a step (share: %)", tasks),
    ]
    with tempfile.TemporaryDirectory() as folder:
        inputs = {}
        for config, processor, model in models():
            endpoints = export(
                Path(folder) / "exports" / config.task / "1", config, processor, model
            )
            inputs[config.task] = endpoints["step"].inputs
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0"],
            env=os.environ | {"UNFOLD_HOME": folder}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        served, address = 0, ""
        for line in process.stderr:
            event = json.loads(line)
            address = event.get("address", address).removeprefix("http://")
            served += event["event"] == "version served"
            if served == len(inputs):
                break
        try:
            for task in tasks:
                asyncio.run(client(address, task, inputs[task], 100))  # warm
                asked = (address, task, inputs[task])
                runs = (client(*asked, STEPS), together(*asked))
                for table, run in zip(tables, runs, strict=True):
                    before = inside(address, task)
                    seen = 1e3 * np.array(asyncio.run(run))
                    total, count, quick = inside(address, task) - before
                    times = {"inside, mean": 1e3 * total / count, "up to 1 ms": 100 * quick / count}
                    p50, p99 = np.percentile(seen, [50, 99])
                    table.add(task, times | {"seen, p50": p50, "seen, p99": p99})
        finally:
            process.terminate()
            process.stderr.read()
            process.wait()
    report("streaming", tables)


if __name__ == "__main__":
    main()
