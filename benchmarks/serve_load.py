"""Measure a server under load from clients on the same machine.

    python -m benchmarks.serve_load               # sentiment, beside `mlflow models serve`
    python -m benchmarks.serve_load --against TREE  # and beside the server of another checkout
    python -m benchmarks.serve_load --soak 30     # minutes, on all models in UNFOLD_HOME/exports
    python -m benchmarks.serve_load --attacks 30  # minutes, sentiment and a model that streams

The load is 1, 8, 32 and 128 clients, each repeatedly requesting the class of a text of 50 words
and waiting for the answer. The model is the default config's, with random weights (they do not
affect times). TensorFlow alone then runs batches of the mean size that the server ran. The load is
repeated while new versions replace old ones. The soak mixes requests to all exported models,
streams, malformed requests, disconnecting clients and new versions, and records the server's
memory. Under attack, 16 clients go on while `benchmarks.attacks` runs in another process
and nobody reads the server's log.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.measure import Table, report
from pipelines.engine.core.files import new_folder

ROOT = Path(__file__).parents[1]
CLIENTS = 32
CROWDS = (1, 8, 32, 128)
WORDS = 50
#: Between two versions, and of the whole load (seconds).
RELOAD_EVERY, SECONDS = 6.0, 20.0
#: In the soak: between two looks at the memory, two new versions, two requests of a client.
SAMPLE_EVERY, RENEW_EVERY, PAUSE = 10.0, 60.0, 1.0
#: Under attack: clients, and seconds between two requests of one.
HONEST, HONEST_PAUSE = 16, 0.1
JSON = "application/json"


def request(path: str, value: Any, port: int) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {JSON}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(connection: Any, raw: bytes) -> tuple[int, bytes]:
    """Send a request; return the status and body of the response."""
    reader, writer = connection
    writer.write(raw)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(size)


async def load(
    port: int, requests: list[bytes], seconds: float, clients: int = CLIENTS
) -> dict[str, float]:
    """Run clients for ``seconds``; return the response times and their number."""
    times: list[float] = []
    failed = 0
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal failed
        connection = await asyncio.open_connection("127.0.0.1", port)
        for raw in itertools.islice(itertools.cycle(requests), number, None):
            started = time.perf_counter()
            status, _ = await ask(connection, raw)
            ended = time.perf_counter()
            times.append(ended - started)
            failed += status != 200
            if ended > until:
                break
        connection[1].close()

    started = time.perf_counter()
    await asyncio.gather(*(client(i) for i in range(clients)))
    spent = time.perf_counter() - started
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {
        "requests/s": len(times) / spent,
        "p50 ms": p50,
        "p99 ms": p99,
        "longest ms": max(times) * 1e3,
        "failed": failed,
    }


@contextlib.contextmanager
def server(
    command: list[str],
    path: str,
    log: int = subprocess.DEVNULL,
    tree: Path | None = None,
    **environment: str,
) -> Iterator[tuple[int, Any]]:
    """Start a server and wait until it is ready; return its port and process.

    Args:
        command: The module and its arguments.
        path: Where it says whether it is ready.
        log: Its standard error.
        tree: Another checkout, with its own ``.venv``, whose server to start.
        environment: Variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = Path(sys.executable) if tree is None else tree / ".venv/bin/python"
    environment |= {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        [str(python), "-m", *command, "--port", str(port)],
        cwd=tree,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )
    try:
        asyncio.run(_ready(process, port, path))
        yield port, process
    finally:
        whole = psutil.Process(process.pid)
        for child in [*whole.children(recursive=True), whole]:
            child.terminate()
        process.wait(timeout=90)


async def _ready(process: Any, port: int, path: str) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            connection = await asyncio.open_connection("127.0.0.1", port)
            get = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            status, _ = await ask(connection, get)
            connection[1].close()
            if status == 200:
                return
        await asyncio.sleep(0.5)
    raise RuntimeError("the server has ended")


def texts(count: int) -> list[str]:
    """Return texts of 50 words from reviews."""
    from pipelines.engine.config import loader as configs
    from pipelines.sentiment.task import TASK

    config = configs.load(ROOT / "configs/sentiment/default.yaml", TASK.config)
    words = [w for r in TASK.load(config).test[:count] for w in r.text.split()]
    random.Random(1).shuffle(words)
    return [" ".join(words[i * WORDS : (i + 1) * WORDS]) for i in range(count)]


def export_sentiment(folder: Path) -> None:
    """Export the default config's model with random weights, as for a run."""
    from pipelines.engine.config import loader as configs
    from pipelines.engine.export import savedmodel
    from pipelines.sentiment.task import TASK

    config = configs.load(ROOT / "configs/sentiment/default.yaml", TASK.config)
    processor = TASK.fit_processor(config, TASK.load(config))
    model = TASK.build(config, processor)
    savedmodel.write(folder, model, TASK.endpoints(config, processor, model), processor.resources())


def again(folder: Path) -> Path:
    """Copy the newest version in a folder as the next version and remove older ones."""
    versions = sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())
    target = folder / str(versions[-1] + 1)
    with new_folder(target) as work:
        shutil.copytree(folder / str(versions[-1]), work, dirs_exist_ok=True)
    for old in versions[:-1]:
        shutil.rmtree(folder / str(old))
    return target


SERVE = ["pipelines.cli", "serve"]
PREDICT = "/v1/models/sentiment:predict"


def compare(against: Path | None) -> None:
    some = texts(128)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        folder = home / "exports" / "sentiment"
        export_sentiment(folder / "1")
        servers = {"unfold serve": None} | ({"the other checkout": against} if against else {})
        rows: dict[str, dict[str, float]] = {}
        for clients in CROWDS:
            for label, tree in servers.items():
                measured = _crowd(clients, some, tree, name)
                rows[f"{label}, {clients} clients"] = measured
                print(label, clients, measured, flush=True)
            size = round(rows[f"unfold serve, {clients} clients"]["rows a batch"])
            rows[f"TensorFlow alone, batches of {size}"] = alone(folder / "1", some, size)
        with server(SERVE, "/readyz", UNFOLD_HOME=name) as (port, _):
            asked = [request(PREDICT, {"instances": [text]}, port) for text in some]
            asyncio.run(load(port, asked, 3))
            renewed = asyncio.run(_reloading(port, asked, folder))
            rows[f"unfold serve, {CLIENTS} clients, a new version every few seconds"] = renewed
        rows[f"mlflow models serve, {CLIENTS} clients"] = _mlflow(home, folder, some)
    table = Table(f"Texts of {WORDS} words, clients and server on the same machine", list(rows))
    for label, row in rows.items():
        table.add(label, row)
    report("serve_load", [table])


def _crowd(clients: int, some: list[str], tree: Path | None, home: str) -> dict[str, float]:
    """Return the times of a number of clients, and what the server used for a request."""
    with server(SERVE, "/readyz", tree=tree, UNFOLD_HOME=home) as (port, process):
        asked = [request(PREDICT, {"instances": [text]}, port) for text in some]
        asyncio.run(load(port, asked, 3, clients))
        whole = psutil.Process(process.pid)
        used, batches = sum(whole.cpu_times()[:2]), _batches(port)
        measured = asyncio.run(load(port, asked, SECONDS, clients))
        used, batches = sum(whole.cpu_times()[:2]) - used, _batches(port) - batches
    count = measured["requests/s"] * SECONDS
    return measured | {"CPU ms a request": 1e3 * used / count, "rows a batch": count / batches}


def _batches(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = re.search(r"^unfold_batch_rows_count\S* (\S+)$", answer.read().decode(), re.M)
    return float(found[1]) if found else 0.0


def alone(export: Path, some: list[str], size: int) -> dict[str, float]:
    """Return the rate and the processor time of TensorFlow alone, in a process like the server."""
    code = (
        "import json, sys, time, tensorflow as tf\n"
        "from benchmarks.serve_load import run_alone\n"
        "json.dump(run_alone(*json.load(sys.stdin)), sys.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([str(export), some, size]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run_alone(export: str, some: list[str], size: int) -> dict[str, float]:
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(2)  # as the server's two workers
    tf.config.threading.set_intra_op_parallelism_threads(1)
    loaded = tf.saved_model.load(export)
    signature = loaded.signatures["serving_default"]
    batches = [tf.constant((some * size)[i : i + size]) for i in range(0, len(some), size)]
    calls = 0
    for batch in batches:
        signature(text=batch)
    started, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < SECONDS / 2:
        signature(text=batches[calls % len(batches)])
        calls += 1
    used, spent = time.process_time() - used, time.perf_counter() - started
    return {
        "requests/s": calls * size / spent,
        "CPU ms a request": 1e3 * used / (calls * size),
        "rows a batch": size,
    }


def _mlflow(home: Path, exports: Path, some: list[str]) -> dict[str, float]:
    _mlflow_model(exports, home / "mlflow")
    command = [
        "mlflow", "models", "serve", "-m", str(home / "mlflow"), "--env-manager", "local",
    ]  # fmt: skip
    store = f"sqlite:///{home}/mlflow.db"
    with server(command, "/ping", MLFLOW_TRACKING_URI=store) as (port, _):
        asked = [
            request("/invocations", {"dataframe_records": [{"text": text}]}, port) for text in some
        ]
        asyncio.run(load(port, asked, 3))
        return asyncio.run(load(port, asked, SECONDS))


async def _reloading(port: int, asked: list[bytes], folder: Path) -> dict[str, float]:
    async def renew() -> None:
        while True:
            await asyncio.sleep(RELOAD_EVERY)
            await asyncio.to_thread(again, folder)

    renewing = asyncio.create_task(renew())
    found = await load(port, asked, 2 * SECONDS)
    renewing.cancel()
    return found


def _mlflow_model(exports: Path, target: Path) -> None:
    import mlflow

    from pipelines.engine.export.savedmodel import mlflow_signature
    from pipelines.engine.runs import mlflow_model

    newest = max(exports.iterdir(), key=lambda p: p.stat().st_mtime)
    mlflow.pyfunc.save_model(
        path=str(target),
        python_model=str(mlflow_model.__file__),
        artifacts={"savedmodel": str(newest)},
        signature=mlflow_signature(newest),
        pip_requirements=["mlflow", "tensorflow"],
    )


async def soak(port: int, process: psutil.Process, exports: Path, minutes: float) -> list[Table]:
    """Run a mixed load; report the responses by task and the server's memory."""
    rng = random.Random(1)
    some = texts(64)
    tasks = [p.name for p in sorted(exports.iterdir()) if p.name in ASKED]
    others = ["malformed", "left"]
    if "generation" in tasks:
        others.append("stream")
    found: dict[str, list[float]] = {name: [] for name in (*tasks, *others)}
    failed = dict.fromkeys(found, 0)
    memory: list[tuple[float, float]] = []
    until = time.monotonic() + minutes * 60

    async def one(kind: str, connection: Any) -> None:
        started = time.perf_counter()
        if kind == "malformed":
            status, _ = await ask(connection, request(*rng.choice(MALFORMED), port))
            failed[kind] += not 400 <= status < 500
        elif kind == "left":
            task = rng.choice(tasks)
            gone = await asyncio.open_connection("127.0.0.1", port)
            gone[1].write(request(f"/v1/models/{task}:predict", ASKED[task](rng, some), port))
            gone[1].close()
        elif kind == "stream":
            try:
                failed[kind] += not await streamed(port)
            except (OSError, WebSocketException) as error:
                failed[kind] += 1
                print(kind, error, flush=True)
        else:
            raw = request(f"/v1/models/{kind}:predict", ASKED[kind](rng, some), port)
            status, body = await ask(connection, raw)
            failed[kind] += status != 200
            if status != 200:
                print(kind, status, body[:300], flush=True)
        found[kind].append(time.perf_counter() - started)

    async def client() -> None:
        connection = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until:
            await one(rng.choice(list(found)), connection)
            await asyncio.sleep(rng.expovariate(1 / PAUSE))
        connection[1].close()

    async def watch() -> None:
        while True:
            memory.append((time.monotonic(), process.memory_info().rss / 1e6))
            await asyncio.sleep(SAMPLE_EVERY)

    async def renew() -> None:
        for task in itertools.cycle(tasks):
            await asyncio.sleep(RENEW_EVERY)
            await asyncio.to_thread(again, exports / task)

    beside = [asyncio.create_task(watch()), asyncio.create_task(renew())]
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    for task in beside:
        task.cancel()
    table = Table(f"{minutes:g} minutes of mixed load, {CLIENTS} clients", list(found))
    for kind, times in found.items():
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        table.add(
            kind, {"requests": len(times), "p50 ms": p50, "p99 ms": p99, "failed": failed[kind]}
        )
    # Measure growth over the last two thirds, after each model was called and replaced once.
    at, size = np.array(memory[len(memory) // 3 :]).T
    slope = np.polyfit(at / 3600, size, 1)[0]
    grown = Table("Memory of the server", ["MB"])
    grown.add(
        0, {"start": memory[0][1], "end": memory[-1][1], "MB/h over the last two thirds": slope}
    )
    print([round(mb) for _, mb in memory], flush=True)
    return [table, grown]


def attacked(minutes: float) -> list[Table]:
    """Run honest clients beside attackers; report their responses and the server's memory."""
    from benchmarks.streaming import export, models

    some = texts(64)
    with tempfile.TemporaryDirectory() as name:
        exports = Path(name) / "exports"
        export_sentiment(exports / "sentiment" / "1")
        export(exports / "live" / "1", *next(models()))
        with server(SERVE, "/readyz", subprocess.PIPE, UNFOLD_HOME=name) as (port, process):
            asked = [request("/v1/models/sentiment:predict", {"inputs": [t]}, port) for t in some]
            whole = psutil.Process(process.pid)
            alone = asyncio.run(honest(port, asked, whole, 30))
            attack = [sys.executable, "-m", "benchmarks.attacks", str(port)]
            with subprocess.Popen(attack) as attackers:
                found = asyncio.run(honest(port, asked, whole, minutes * 60))
                attackers.terminate()
    table = Table(f"{HONEST} honest clients", ["alone", f"{minutes:g} minutes under attack"])
    table.add(0, alone)
    table.add(1, found)
    return [table]


async def honest(
    port: int, asked: list[bytes], process: psutil.Process, seconds: float
) -> dict[str, float]:
    """Run clients that pause between requests, and watch the memory of the server."""
    times: list[float] = []
    failed = 0
    memory: list[float] = []
    started = time.perf_counter()

    async def client(number: int) -> None:
        nonlocal failed
        connection = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - started < seconds:
            asking = time.perf_counter()
            try:
                status, _ = await ask(connection, asked[number])
            except (OSError, asyncio.IncompleteReadError) as error:
                failed += 1
                print(repr(error), flush=True)
                connection = await asyncio.open_connection("127.0.0.1", port)
            else:
                times.append(time.perf_counter() - asking)
                failed += status != 200
            await asyncio.sleep(random.expovariate(1 / HONEST_PAUSE))
        connection[1].close()

    async def watch() -> None:
        while True:
            memory.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(SAMPLE_EVERY)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(client, range(HONEST)))
    watching.cancel()
    print([round(mb) for mb in memory], flush=True)
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    third = -(-len(memory) // 3)
    medians = [float(np.median(memory[i : i + third])) for i in range(0, len(memory), third)]
    return {
        "requests": len(times),
        "p50 ms": p50,
        "p99 ms": p99,
        "longest ms": max(times) * 1e3,
        "failed": failed,
        "MB at first": memory[0],
        # Bodies in flight make it go up and down.
        **{f"median MB, third {i}": median for i, median in enumerate(medians, 1)},
        "most MB": max(memory),
    }


async def streamed(port: int) -> bool:
    """Generate a few notes over a stream; return whether each request was answered."""
    async with connect(f"ws://127.0.0.1:{port}/v1/models/generation:stream") as socket:
        for note in "GABcd":
            await socket.send(
                json.dumps({"text": note, "max_length": 2, "temperature": 0.8, "seed": 1})
            )
            if "error" in json.loads(await socket.recv()):
                return False
    return True


def _picture(rng: random.Random) -> str:
    """Return an image of one color as base64."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 48), tuple(rng.randrange(256) for _ in range(3))).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


#: One request for each task, as a client would send it.
ASKED: dict[str, Callable[[random.Random, list[str]], Any]] = {
    "sentiment": lambda rng, some: {"instances": rng.choices(some, k=rng.choice([1, 1, 1, 8]))},
    "generation": lambda rng, some: {
        "instances": [
            {
                "prompt": "X:1\nT:",
                "temperature": rng.choice([0, 0.8]),
                "max_length": rng.choice([20, 60]),
                "seed": rng.randrange(1000),
            }
        ]
    },
    "translation": lambda rng, some: {
        "inputs": {
            "text": [" ".join(rng.choice(some).split()[: rng.randint(3, 12)])],
            "beam_width": [rng.choice([1, 4])],
            "max_length": [20],
        }
    },
    "captioning": lambda rng, some: {
        "instances": [
            {"image": {"b64": _picture(rng)}, "beam_width": rng.choice([1, 3]), "max_length": 15}
        ]
    },
    # The default config reads the closing price and the day's high and low.
    "forecasting": lambda rng, some: {
        "instances": [
            {
                "history": [[rng.uniform(90, 110), 112.0, 88.0] for _ in range(80)],
                "lengths": 80,
                "series": rng.choice(["AAPL", "another"]),
            }
        ]
    },
}
MALFORMED = [
    ("/v1/models/sentiment:predict", b"{"),
    ("/v1/models/sentiment:predict", {"instances": [1]}),
    ("/v1/models/sentiment:predict", {"instances": [{"b64": "*"}]}),
    ("/v1/models/sentiment:predict", b'{"instances": ["\xff"]}'),
    ("/v1/models/sentiment:predict", b"[" * 50_000),
    ("/v1/models/sentiment/versions/0:predict", {"instances": ["a"]}),
    ("/v1/models/another:predict", {"instances": ["a"]}),
    ("/nowhere", {}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--attacks", type=float, metavar="MINUTES")
    parser.add_argument("--against", type=Path, metavar="TREE")
    args = parser.parse_args()
    if args.attacks is not None:
        report("serve_attacks", attacked(args.attacks))
        return
    if args.soak is None:
        compare(args.against)
        return
    from pipelines.engine.core.paths import home

    with server(SERVE, "/readyz") as (port, process):
        whole = psutil.Process(process.pid)
        tables = asyncio.run(soak(port, whole, home() / "exports", args.soak))
    report("serve_soak", tables)


if __name__ == "__main__":
    main()
