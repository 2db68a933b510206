"""BMCs found in a range: real HTTP on loopback, where some are BMCs, one is something else, and most are nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from core.errors import Invalid
from drivers import discovery
from drivers.discovery import FoundBmc, addresses, discover

ROOT = {"RedfishVersion": "1.6.0", "Vendor": "Dell", "Product": "iDRAC", "UUID": "u-1", "Name": "Root Service"}
ANSWERS: dict[str, tuple[int, bytes]] = {
    "127.0.0.2": (200, json.dumps(ROOT).encode()), "127.0.0.3": (200, b"<html>a switch</html>"),
    "127.0.0.4": (401, b"{}"), "127.0.0.5": (200, b'{"RedfishVersion": "1.0"}'), "127.0.0.6": (200, b"[" * 2**20),
}  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        host = str(self.connection.getsockname()[0])
        status, body = ANSWERS.get(host, (404, b""))
        self.server.asked.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("0.0.0.0", 0), _Handler)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server.server_address[1]
    assert {path for path, _ in server.asked} == {"/redfish/v1/"}  # type: ignore[attr-defined]
    assert {secret for _, secret in server.asked} == {None}  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


async def test_only_what_answers_as_a_bmc_is_found(port: int) -> None:
    found = await discover("127.0.0.0/28", port=port, scheme="http")
    assert found == [
        FoundBmc(f"http://127.0.0.2:{port}", "Dell", "iDRAC", "1.6.0", "u-1"),
        FoundBmc(f"http://127.0.0.5:{port}", "", "", "1.0", ""),
    ]


async def test_where_nobody_answers_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ANSWER_S", 0.2)
    assert await discover("127.0.0.1", port=1) == []


@pytest.mark.parametrize(("text", "count", "first", "last"), [
    ("10.0.0.0/24", 254, "10.0.0.1", "10.0.0.254"), ("10.0.0.7", 1, "10.0.0.7", "10.0.0.7"),
    ("10.0.0.9 - 10.0.0.12", 4, "10.0.0.9", "10.0.0.12"), ("10.0.0.5/20", 4094, "10.0.0.1", "10.0.15.254"),
    ("fd00::/126", 3, "fd00::1", "fd00::3"),
])  # fmt: skip
def test_ranges(text: str, count: int, first: str, last: str) -> None:
    found = addresses(text)
    assert (len(found), found[0], found[-1]) == (count, first, last)


@pytest.mark.parametrize("text", [
    "", "bmc-1", "10.0.0.0/8", "::/0", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.1-",
])  # fmt: skip
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(Invalid):
        addresses(text)


async def test_another_scheme_is_refused() -> None:
    with pytest.raises(Invalid, match="no scheme"):
        await discover("10.0.0.1", scheme="file")
