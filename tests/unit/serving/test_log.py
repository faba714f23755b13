"""The server's log, in a process of its own since it is configured once for a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support import ROOT

SCRIPT = """
import logging
from pipelines.serving import log

log.configure()
log.LOGGER.info("request", model="grün", version=None)
log.LOGGER.debug("details")
logging.getLogger("library").warning("a %s", "warning")
logging.getLogger("library").info("details")
for logger in (log.LOGGER, logging.getLogger("library")):
    try:
        raise ValueError("what a client sent")
    except ValueError:
        logger.exception("request failed")
log.LOGGER.info("file", name="\\udcff")
log.close()
"""
#: Writes more than anybody reads, and says on standard output how many lines were dropped.
FLOOD = """
import sys, time
from pipelines.serving import log

log.configure()
for i in range(30_000):
    log.LOGGER.info("request", number=i, filler="a" * 100)
dropped = log.dropped_lines()
print(dropped, flush=True)
sys.stdin.readline()
while log._writer._waiting:
    time.sleep(0.01)
log.LOGGER.info("after")
log.close()
print(dropped == log.dropped_lines())
"""


def test_each_event_is_a_line_of_json_without_messages_of_exceptions():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "what a client sent" not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(line.pop("time").endswith("+00:00") for line in lines)
    request, warning, *failures, file = lines
    assert request == {"level": "info", "event": "request", "model": "grün", "version": None}
    assert warning == {"level": "warning", "event": "a warning"}
    for failure in failures:
        assert (failure["level"], failure["event"]) == ("error", "request failed")
        assert failure["error"] == "ValueError"
        assert failure["at"] == ["<string>:12 <module>"]
    assert len(failures) == 2
    assert file["name"] == r"'\udcff'"


def test_a_reader_that_stops_does_not_stop_the_server():
    with subprocess.Popen(
        [sys.executable, "-c", FLOOD], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        dropped = int(process.stdout.readline())  # it gets here although nobody reads its log
        assert dropped > 0
        out, err = process.communicate("\n", timeout=60)
    lines = [json.loads(line) for line in err.splitlines()]
    numbers = [line["number"] for line in lines if line["event"] == "request"]
    assert numbers == sorted(numbers)
    assert len(numbers) == 30_000 - dropped
    assert [line["count"] for line in lines if line["event"] == "lines dropped"] == [dropped]
    assert lines[-1]["event"] == "after"
    assert out == "True\n"


def test_a_reader_that_has_left_or_never_reads_does_not_hold_the_process():
    for close in (True, False):
        read, write = os.pipe()
        if close:
            os.close(read)
        script = FLOOD.replace("while log._writer._waiting:", "while False:")
        process = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, text=True, input="\n",
            stdout=subprocess.PIPE, stderr=write, timeout=60,
        )  # fmt: skip
        os.close(write)
        if not close:
            os.close(read)
        assert process.returncode == 0
