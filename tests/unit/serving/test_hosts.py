"""Which hosts and web pages may send requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.serving.errors import RequestError
from pipelines.serving.hosts import HostRules

LOCAL = ["localhost", "LOCALHOST:8501", "127.0.0.1", "127.8.9.1:1", "[::1]:8501", "[::1]"]
OTHERS = [
    "example.org",
    "localhost.example.org:8501",
    "10.0.0.1",
    "[2001:db8::1]:8501",
    "127.0.0.1.example.org",
]
MALFORMED = [
    "",
    ":8501",
    "me@localhost",
    "localhost:x",
    "local host",
    "[::1",
    "http://localhost",
    "localhost/",
]


def is_allowed(rules: HostRules, **headers: str) -> bool:
    try:
        rules.check({name.title(): value for name, value in headers.items()})
    except RequestError as error:
        return error.status != 403
    return True


@pytest.mark.parametrize("listening", ["127.0.0.1", "localhost", "::1"])
def test_on_loopback_only_this_machine_is_called(listening):
    rules = HostRules(listening, ["Models.example"])
    for host in [*LOCAL, "models.example", "models.example:80"]:
        assert is_allowed(rules, host=host), host
        assert is_allowed(rules, host=host, origin="http://127.0.0.1:7860")
        assert is_allowed(rules, host=host, origin="https://models.example")
        for page in [*(f"http://{other}" for other in OTHERS + MALFORMED), "null", "localhost"]:
            assert not is_allowed(rules, host=host, origin=page), page
    for host in OTHERS + MALFORMED:
        assert not is_allowed(rules, host=host), host
        assert not is_allowed(rules, host=host, origin=f"http://{host}"), host
    assert is_allowed(rules)  # HTTP/1.0, which browsers do not speak


def test_on_other_addresses_hosts_are_checked_if_there_is_a_list():
    rules = HostRules("0.0.0.0", [])
    for host in LOCAL + OTHERS:
        assert is_allowed(rules, host=host)
        assert is_allowed(rules, host=host, origin=f"https://{host}")
    assert not is_allowed(rules, host="example.org", origin="https://evil.example")
    assert not is_allowed(rules, host="example.org", origin="null")
    rules = HostRules("0.0.0.0", ["models.example"])
    assert is_allowed(rules, host="models.example", origin="https://models.example")
    assert not is_allowed(rules, host="example.org")
    assert not is_allowed(rules, host="example.org", origin="https://example.org")


@given(st.text(max_size=20))
def test_whatever_a_client_sends_is_allowed_or_rejected(value):
    is_allowed(HostRules("127.0.0.1", []), host=value, origin=value)
    assert not is_allowed(HostRules("127.0.0.1", []), host=value + "x")
