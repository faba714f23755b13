"""The browser of other tests records every request and every error."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = pytest.mark.browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "seen.txt").write_text("seen")
    (folder / "page.html").write_text("""<!doctype html><title>A page</title>
<link rel="icon" href="data:,"><input id="name">
<button id="more" onclick="this.textContent = document.getElementById('name').value">more</button>
<button id="bad" onclick="nothing()">bad</button>
<button id="ask" onclick="fetch('seen.txt').then(r => r.text()).then(t => window.got = t)">ask</button>
<button id="out" onclick="fetch('http://example.org/').catch(() => window.out = true)">out</button>
<p style="margin-top: 3000px"><button id="far" onclick="console.warn('far', 1)">far</button></p>
""")  # noqa: E501
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_requests_errors_and_input(browser, site, tmp_path):
    page = browser.open(f"{site}/page.html", width=700)
    assert page.evaluate("document.title") == "A page"
    assert page.evaluate("Promise.resolve(innerWidth)") == 700
    assert (page.requests, page.messages) == ([f"{site}/page.html"], [])
    page.click("#ask")
    page.wait("window.got === 'seen'")
    assert page.requests[1:] == [f"{site}/seen.txt"]
    page.click("#out")  # other hosts cannot be reached
    page.wait("window.out")
    assert page.requests[2:] == ["http://example.org/"]
    page.messages.clear()
    page.click("#bad")
    browser.wait(lambda: page.messages, "the error is recorded")
    assert "nothing is not defined" in page.messages[0]
    page.click("#far")
    browser.wait(lambda: page.messages[1:], "the warning is recorded")
    assert page.messages[1:] == ["warning: far 1"]
    page.click("#name")
    page.type("ü 1")
    page.press("a")
    page.click("#more")
    assert page.evaluate("document.getElementById('more').textContent") == "ü 1a"
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(LookupError, match="#nowhere"):
        page.click("#nowhere")
    with pytest.raises(RuntimeError, match="nothing is not defined"):
        page.evaluate("nothing()")
    page.close()


def test_light_and_dark_colour_schemes(browser):
    asked = "matchMedia('(prefers-color-scheme: dark)').matches"
    for dark in (False, True):
        page = browser.open("data:text/html,<title>x</title>", dark=dark)
        assert page.evaluate(asked) is dark
        assert page.requests == []
        page.close()
