"""A training goes on while the MLflow server is gone."""

from __future__ import annotations

import socket
import time

from tests.support.commands import ok, unfold
from tests.support.processes import server
from tests.support.recovery import (
    assert_tracked_once,
    fresh_store,
)
from tests.support.reviews import small


def test_the_mlflow_server_is_gone_for_a_while(reviews, whole, tmp_path):
    home = fresh_store(tmp_path / "home", whole[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    command = ["-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(home / "mlartifacts")]
    done = unfold(home, "train", "sentiment", "--json", *small(reviews), **address)
    result = ok(done)
    assert result["scores"] == whole[1]["scores"]
    assert done.stderr.count("can be sent later") == 1
    with server(command, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
        until = time.monotonic() + 600
        while unfold(home, "track", "sentiment", **address).returncode:
            assert time.monotonic() < until
    assert_tracked_once(home)
