"""The REST API of a real server process."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from pipelines.cli import main
from tests.support.servers import SETTINGS, Server, export, serving, wait


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    export(home / "exports" / "tiny" / "1", factor=0.1)
    export(home / "exports" / "plain" / "3", signatures=["series", "checked"])
    with serving(home, *SETTINGS) as running:
        yield running


def error(answer: requests.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    return answer.json()["error"]


def test_row_and_column_format_match_tensorflow_serving(server):
    picture = base64.b64encode(b"\xff\x00").decode()
    green = base64.b64encode("grün".encode()).decode()
    rows = server.post({"instances": ["grün", {"b64": picture}]})
    assert rows.headers["content-type"] == "application/json"
    first = {"loud": "GRÜN", "raw_bytes": {"b64": green}, "score": 0.4, "pair": [4, -4]}
    one, other = rows.json()["predictions"]
    assert one == first
    assert other["raw_bytes"] == {"b64": picture}
    assert "�" in other["loud"]
    # A name is allowed too; existing clients send the content type of a form.
    assert server.post({"instances": [{"text": "grün"}]}).json() == {"predictions": [first]}
    columns = {"outputs": {name: [value] for name, value in first.items()}}
    assert server.post({"inputs": {"text": ["grün"]}}).json() == columns
    assert server.post({"inputs": ["grün"], "signature_name": "serving_default"}).json() == columns
    assert server.post({"inputs": []}).json()["outputs"]["pair"] == []


def test_a_single_output_has_no_name(server):
    named = {"series": [[1, 2.5], [3, 3.5]], "beam_width": 2}
    answer = server.post({"signature_name": "series", "instances": [named, named]}).json()
    assert answer == {"predictions": [2.0, 2.0]}
    columns = {"series": [[[1, 2.5], [3, 3.5]]], "beam_width": [1]}
    answer = server.post({"signature_name": "series", "inputs": columns}).json()
    assert answer == {"outputs": [1.0]}


def test_a_signature_without_inputs_and_nan_outputs(server):
    answer = server.post({"signature_name": "about", "inputs": {}})
    assert '"nan": [NaN, 0.1]' in answer.text
    assert answer.json()["outputs"]["names"] == ["a", "b"]


def test_status_and_metadata(server):
    status = {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert server.get("/v1/models/tiny").json() == status
    assert server.get("/v1/models/tiny/versions/1").json() == status
    about = server.get("/v1/models/tiny/metadata").json()
    assert about == server.get("/v1/models/tiny/versions/1/metadata").json()
    assert about["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    found = about["metadata"]["signature_def"]["signature_def"]
    assert found["series"]["method_name"] == "tensorflow/serving/predict"
    assert found["series"]["inputs"]["series"]["dtype"] == "DT_FLOAT"
    sizes = [d["size"] for d in found["series"]["inputs"]["series"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "-1", "2"]
    assert server.get("/healthz").status_code == 200
    assert server.get("/readyz").json() == {
        "ready": True,
        "models": {"plain": True, "tiny": True},
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/other:predict", 404),
        ("/v1/models/tiny/versions/9:predict", 404),
        ("/v1/models/tiny/versions/9223372036854775808:predict", 400),
        (f"/v1/models/tiny/versions/{'9' * 5000}:predict", 400),
        ("/v1/models/tiny/versions/one:predict", 400),
        ("/v1/models/tiny/versions/+1:predict", 400),
        ("/v1/models/tiny/versions/1.0:predict", 400),
        ("/v1/models/tiny/versions/1_0:predict", 400),
        ("/v1/models/tiny/labels/nobody:predict", 400),
        ("/v1/models/..%2f..%2fetc%2fpasswd:predict", 404),
        ("/v1/models/../../tiny:predict", 404),
        ("/v1/models/%00:predict", 404),
        ("/v1/models/:predict", 400),
        ("/v1/models/tiny", 400),
        ("/v1/models/tiny/metadata", 400),
        ("/v1/models/tiny:stream", 400),
        (f"/v1/models/tiny:{'a' * 10_000}", 400),
        ("/v1/models/tiny:classify", 501),
        ("/healthz", 405),
        ("/nowhere", 404),
    ],
)
def test_unknown_paths_are_rejected(server, path, status):
    message = error(server.post({"instances": ["a"]}, path), status)
    assert len(message) < 200


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/models", "Malformed request: GET /v1/models"),
        ("/v1/models/tiny:predict", "Malformed request: GET /v1/models/tiny:predict"),
        ("/v1/models/tiny/versions/one", "Malformed request: GET /v1/models/tiny/versions/one"),
        ("/v1/models/tiny:stream", "invalid WebSocket handshake"),
    ],
)
def test_a_malformed_path_is_answered_as_by_tensorflow_serving(server, path, says):
    assert error(server.get(path), 400) == says


def test_paths_match_in_upper_case_but_not_names(server):
    assert server.post({"inputs": ["a"]}, "/V1/MODELS/tiny/VERSIONS/1:PREDICT").status_code == 200
    assert server.get("/v1/Models/tiny/Metadata").status_code == 200
    error(server.get("/v1/models/TINY"), 404)


def test_pages_say_what_is_served_and_load_nothing(server):
    for path, says in {
        "/": ["tiny", "serving_default", "series: float [any, any, 2]", "version 1: available"],
        "/docs": ["POST /v1/models/plain:predict", '"instances"', "GET /readyz"],
    }.items():
        page = server.get(path)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for part in says:
            assert part in page.text
        assert not re.search(r"<script|src=|@import|url\(|https?://", page.text)


def test_requests_of_other_sites_are_refused(server):
    body = json.dumps({"inputs": ["a"]})
    url = f"{server.url}/v1/models/tiny:predict"
    for headers in (
        {"Host": "example.org"},
        {"Origin": "http://example.org", "Content-Type": "text/plain"},
        {"Origin": "null"},
    ):
        error(requests.post(url, body, headers=headers), 403)
        error(requests.get(server.url, headers=headers), 403)
    assert requests.post(url, body, headers={"Origin": server.url}).status_code == 200


def series(value: Any, width: Any = (1,)) -> dict[str, Any]:
    return {"signature_name": "series", "inputs": {"series": value, "beam_width": width}}


MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "invalid UTF-8": b'{"instances": ["\xff\xfe"]}',
    "half a character": b'{"instances": ["\\ud800"]}',
    "a list": [],
    "a number": 3,
    "deep": b"[" * 100_000,
    "deep and closed": b'{"instances": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    "no inputs": {},
    "both": {"instances": ["a"], "inputs": ["a"]},
    "no rows": {"instances": []},
    "rows are no list": {"instances": "a"},
    "a number for a text": {"instances": [1]},
    "null for a text": {"instances": [None]},
    "another key": {"instances": [{"txt": "a"}]},
    "one key more": {"instances": [{"text": "a", "more": 1}]},
    "mixed rows": {"instances": [{"text": "a"}, "b"]},
    "invalid base64": {"instances": [{"b64": "a*b="}]},
    "base64 that is no text": {"instances": [{"b64": 3}]},
    "signature is a number": {"signature_name": 3, "instances": ["a"]},
    "no such signature": {"signature_name": "nope", "instances": ["a"]},
    "a private signature": {"signature_name": "__saved_model_init_op", "inputs": {}},
    "missing input": {"signature_name": "series", "inputs": {"series": [[[1, 2]]]}},
    "plain rows of two inputs": {"signature_name": "series", "instances": [1]},
    "NaN": b'{"signature_name": "checked", "instances": [NaN]}',
    "a number too large for JSON": b'{"signature_name": "checked", "instances": [1e999]}',
    "a number too large for float32": {"signature_name": "checked", "instances": [1e39]},
    "a number too large for int32": series([[[1, 2]]], [2**31]),
    "a number too large for int64": series([[[1, 2]]], [2**70]),
    "a fraction for a whole number": series([[[1, 2]]], [1.5]),
    "true for a number": series([[[True, 2]]]),
    "ragged": series([[[1, 2], [3]]]),
    "ragged, deeper": series([[[1, 2]], [[3, [4]]]]),
    "too flat": series([1]),
    "an object for a number": series([[[{}, 2]]]),
    "what the model refuses": {"signature_name": "checked", "instances": [11.0]},
    "unequal batch sizes": {"signature_name": "about", "instances": [{}]} | {"inputs": 1},
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_are_rejected(server, body):
    message = error(server.post(body), 400)
    assert "Traceback" not in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"instances": ["a"] * 21}, "limits.rows"),
        ({"inputs": ["a"] * 21}, "limits.rows"),
        ({"instances": ["a" * 1001]}, "limits.text_bytes"),
        (series([[[1, 2]] * 51]), "limits.steps"),
        (series([[[1, 2]]], [5]), "limits.most.beam_width"),
    ],
)
def test_limits_of_a_request(server, body, key):
    assert key in error(server.post(body), 400)


def test_a_body_that_is_too_long_is_rejected(server):
    assert "limits.body_bytes" in error(server.post(b" " * 100_000_000), 413)

    def endless():
        for _ in range(1000):
            yield b" " * 1000

    assert "limits.body_bytes" in error(server.post(endless()), 413)
    assert server.post({"instances": ["a"]}).status_code == 200


def test_a_body_that_does_not_arrive_is_counted_but_takes_no_place(server):
    """There are more than ``limits.concurrent``."""
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(server.connect()) for _ in range(20)]
        for connection in connections:
            connection.sendall(
                b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 9\r\n\r\n{"
            )
        assert server.post({"instances": ["a"]}).status_code == 200
        for connection in connections:
            head, _, body = connection.recv(1000).partition(b"\r\n\r\n")
            assert head.split(b" ")[1] == b"408"
            assert "limits.receive_seconds" in json.loads(body)["error"]
    assert 'unfold_requests_total{model="tiny",status="408"} 20.0' in server.get("/metrics").text


def test_a_client_that_leaves_does_not_affect_others(server):
    for _ in range(5):
        with server.connect() as connection:
            connection.sendall(
                b"POST /v1/models/tiny:predict HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"
            )
    assert server.post({"instances": ["a"]}).status_code == 200


def test_a_prediction_that_takes_too_long_holds_up_no_other_and_is_cancelled(server):
    forever = {"signature_name": "slow", "instances": [2**31 - 1]}
    with ThreadPoolExecutor(1) as client:
        long = client.submit(server.post, forever)
        wait(lambda: "unfold_requests_in_progress 1.0" in server.get("/metrics").text)
        assert server.post({"instances": ["a"]}).status_code == 200
        assert not long.done()
        assert "limits.answer_seconds" in error(long.result(), 504)
    # The cancelled call must have ended, since calls of one signature run one after the other.
    answer = server.post({"signature_name": "slow", "instances": [3]})
    assert answer.json() == {"predictions": [3]}


def test_the_limit_of_concurrent_requests(server):
    forever = {"signature_name": "slow", "instances": [2**31 - 1]}
    with ThreadPoolExecutor(15) as clients:
        answers = list(clients.map(lambda _: server.post(forever), range(15)))
    statuses = [a.status_code for a in answers]
    assert set(statuses) == {429, 504}
    assert statuses.count(504) == 12  # limits.concurrent
    refused = next(a for a in answers if a.status_code == 429)
    assert "limits.concurrent" in refused.json()["error"]
    assert refused.headers["retry-after"] == "1"


def test_batched_requests_get_the_same_answers_as_single_ones(server):
    asked = [
        {
            "signature_name": "series",
            "instances": [
                {"series": [[i, j]] * (1 + i % 2), "beam_width": 1 + i % 3}
                for j in range(1 + i % 2)
            ],
        }
        for i in range(12)
    ]
    alone = [server.post(body).json() for body in asked]
    before = rows_of_batches(server)
    with ThreadPoolExecutor(12) as clients:
        for _ in range(5):
            assert [a.json() for a in clients.map(server.post, asked)] == alone
    calls, rows = (a - b for a, b in zip(rows_of_batches(server), before, strict=True))
    assert rows == 5 * 18
    assert calls < 5 * 12


def rows_of_batches(server: Server) -> tuple[float, float]:
    """Return the number of batches, and of rows in all of them."""
    found = dict(line.rsplit(" ", 1) for line in server.get("/metrics").text.splitlines())
    name = 'unfold_batch_rows_{}{{model="tiny"}}'
    return float(found[name.format("count")]), float(found[name.format("sum")])


def test_a_failing_request_does_not_fail_others(server):
    bodies = [{"signature_name": "checked", "instances": [float(i)]} for i in range(7, 13)]
    with ThreadPoolExecutor(6) as clients:
        for _ in range(5):
            answers = list(clients.map(server.post, bodies))
            assert [a.status_code for a in answers] == [200, 200, 200, 400, 400, 400]


def test_metrics_count_requests_and_the_log_has_no_texts(server):
    server.post({"instances": ["a secret"]})
    server.post({"instances": [{"secret": "a secret"}]})
    server.post(b"a secret")
    text = server.get("/metrics").text
    assert 'unfold_requests_total{model="tiny",status="200"}' in text
    assert 'unfold_model_version{model="tiny"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    same = server.get("/monitoring/prometheus/metrics").text
    assert re.findall(r"^# TYPE .*", same, re.MULTILINE) == re.findall(
        r"^# TYPE .*", text, re.MULTILINE
    )
    assert ':tensorflow:serving:request_count{model_name="tiny",status="OK"}' in text
    assert ':tensorflow:serving:request_latency_bucket{le="2000",model_name="tiny"}' in text
    assert "unfold_log_lines_dropped_total 0.0" in text
    wait(lambda: [e["status"] for e in server.events("request")[-3:]] == [200, 400, 400])
    assert server.events("request")[-1].keys() >= {"time", "model", "status", "ms"}
    assert "secret" not in (server.home / "log").read_text()


def test_a_fuzzer_finds_only_responses_that_match_the_schema(server, tmp_path):
    schema = server.get("/openapi.json").json()
    assert "/v1/models/plain/versions/{version}:predict" in schema["paths"]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json",
            "--include-path-regex", "plain|z$|metrics|json", "--max-examples", "15",
            "--generation-deterministic", "--no-shrink", "--no-color",
            # A schema cannot express that lists have equal lengths, what a model rejects, or that
            # further names are ignored.
            # Wrong methods are malformed requests, as in TensorFlow Serving.
            "--exclude-checks",
            "positive_data_acceptance,negative_data_rejection,unsupported_method",
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases is not None
    assert int(cases[1]) > 20
    assert server.post({"instances": ["a"]}).status_code == 200


@pytest.fixture
def serve_here(monkeypatch, capfd):
    """Run the command in this process, for errors before the server starts."""

    def run(home: Path, *arguments: str) -> str:
        monkeypatch.setenv("UNFOLD_HOME", str(home))
        with pytest.raises(SystemExit) as end:
            main.main(["serve", *arguments])
        assert end.value.code == 2
        return capfd.readouterr().err

    return run


def test_startup_errors_name_the_cause(server, serve_here, tmp_path):
    message = serve_here(tmp_path)
    assert f"no exports in {tmp_path}" in message
    assert "unfold export sentiment" in message
    assert list(tmp_path.iterdir()) == []
    assert "unfold export sentiment" in serve_here(server.home, "tiny", "sentiment")
    assert "no export of '../tiny'" in serve_here(server.home, "../tiny")
    port = server.url.rsplit(":", 1)[1]
    assert f"cannot listen on 127.0.0.1:{port}" in serve_here(server.home, "--port", port)
    assert "port: must be at most 65535" in serve_here(server.home, "--port", "70000")
    assert "allowed_hosts: must be names without scheme and port" in serve_here(
        server.home, "--set", "allowed_hosts=[http://example.org]"
    )
    assert "did you mean rows?" in serve_here(server.home, "--set", "limits.row=3")
    (tmp_path / "mine.yaml").write_text("workers: 0\n")
    assert "mine.yaml:1:1: workers: must be at least 1" in serve_here(
        server.home, "--config", str(tmp_path / "mine.yaml")
    )


class Load(threading.Thread):
    """A client that sends requests without a pause, and records the responses."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server, self.scores, self.failed = server, [], []
        self.ended = threading.Event()

    def run(self) -> None:
        session = requests.Session()
        while not self.ended.is_set():
            url = f"{self.server.url}/v1/models/tiny:predict"
            answer = session.post(url, json={"inputs": ["a"]}, timeout=60)
            if answer.status_code == 200:
                self.scores.append(answer.json()["outputs"]["score"][0])
            else:
                self.failed.append(answer.text)


def test_new_versions_replace_old_ones_under_load_without_errors(tmp_path):
    models = tmp_path / "exports" / "tiny"
    export(models / "1", factor=1.0)
    with serving(tmp_path, *SETTINGS) as server:
        clients = [Load(server) for _ in range(4)]
        for client in clients:
            client.start()

        def served(version: int) -> bool:
            return any(e["version"] == version for e in server.events("version served"))

        def ended(version: int) -> bool:
            return any(e["version"] == version for e in server.events("version ended"))

        export(models / "2", factor=2.0)
        wait(lambda: served(2) and ended(1))
        # A partial copy is skipped and logged, and loaded once it is complete.
        export(tmp_path / "whole", factor=3.0)
        (models / "3").mkdir()
        shutil.copy(tmp_path / "whole" / "saved_model.pb", models / "3")
        wait(lambda: server.events("version skipped"))
        status = server.get("/v1/models/tiny/versions/3").json()["model_version_status"][0]
        assert status["state"] == "END"
        assert status["status"]["error_code"] != "OK"
        error(server.post({"instances": ["a"]}, "/v1/models/tiny/versions/3:predict"), 404)
        shutil.copytree(tmp_path / "whole", models / "3", dirs_exist_ok=True)
        wait(lambda: served(3) and ended(2))
        # A loaded version outlives its files until there is another one.
        for version in "123":  # the newest one last, or an older one would replace it in between
            shutil.rmtree(models / version)
        time.sleep(0.5)
        export(models / "4", factor=4.0)
        wait(lambda: served(4) and ended(3))
        # New files under the same number are loaded; damaged ones are not.
        (models / "4" / "saved_model.pb").write_bytes(b"broken")
        wait(lambda: any(e["version"] == 4 for e in server.events("version skipped")))
        shutil.rmtree(models / "4")
        export(models / "4", factor=5.0)
        wait(lambda: len([e for e in server.events("version served") if e["version"] == 4]) == 2)
        time.sleep(0.2)
        for client in clients:
            client.ended.set()
        for client in clients:
            client.join()
            assert client.failed == []
            assert set(client.scores) == {1.0, 2.0, 3.0, 4.0, 5.0}
            assert client.scores == sorted(client.scores)
        states = server.get("/v1/models/tiny").json()["model_version_status"]
        assert {s["version"]: s["state"] for s in states}["4"] == "AVAILABLE"


def test_shutdown_waits_for_requests_in_flight(tmp_path):
    export(tmp_path / "exports" / "tiny" / "1")
    patient = "limits.answer_seconds=60"
    with serving(tmp_path, *SETTINGS, patient) as server, ThreadPoolExecutor(1) as client:
        long = client.submit(server.post, {"signature_name": "slow", "instances": [100_000]})
        wait(lambda: "unfold_requests_in_progress 1.0" in server.get("/metrics").text)
        server.process.terminate()
        assert long.result().json() == {"predictions": [100_000]}
