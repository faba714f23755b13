"""The server's log, in a process of its own since it is configured once for a process."""

from __future__ import annotations

import json
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
"""


def test_each_event_is_a_line_of_json_without_messages_of_exceptions():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "what a client sent" not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(line.pop("time").endswith("+00:00") for line in lines)
    request, warning, *failures = lines
    assert request == {"level": "info", "event": "request", "model": "grün", "version": None}
    assert warning == {"level": "warning", "event": "a warning"}
    for failure in failures:
        assert (failure["level"], failure["event"]) == ("error", "request failed")
        assert failure["error"] == "ValueError"
        assert failure["at"] == ["<string>:12 <module>"]
    assert len(failures) == 2
