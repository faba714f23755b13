"""Which hosts and web pages may send requests.

A page from elsewhere can make a browser send requests to this machine, and with a DNS name that
changes its address (DNS rebinding) read the answers too. Such requests have the page's host in
their ``Origin`` or ``Host`` header.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pipelines.serving.errors import RequestError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::[0-9]*)?")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(.+)")


class HostRules:
    """Reject requests to other hosts, and of pages of other hosts.

    Args:
        listening: The address that the server listens on. On a loopback address, the hosts are
            those of this machine; on others, any unless ``allowed`` has some.
        allowed: Names of further hosts.
    """

    def __init__(self, listening: str, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(map(host_name, allowed))
        self._is_restricted = bool(allowed) or is_loopback(listening.lower())

    def check(self, headers: Mapping[str, str]) -> None:
        """Check the headers of a request.

        Raises:
            RequestError: With status 403.
        """
        host = headers.get("Host")
        if host is not None and self._is_restricted and not self._is_known(host_name(host)):
            raise RequestError(403, "the request is for another host (see allowed_hosts)")
        origin = headers.get("Origin")
        if origin is None:
            return
        scheme = _ORIGIN.fullmatch(origin)
        page = host_name(scheme[1]) if scheme else None
        if self._is_known(page):
            return
        is_own = page is not None and host is not None and page == host_name(host)
        if self._is_restricted or not is_own:
            raise RequestError(403, "web pages of another host may not send requests")

    def _is_known(self, name: str | None) -> bool:
        return name is not None and (name in self._allowed or is_loopback(name))


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Return whether a host, in lower case, is always this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache(256)
def host_name(host: str) -> str | None:
    """Return the host of ``HOST:PORT`` in lower case; None if it is malformed."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").lower() if found else None
