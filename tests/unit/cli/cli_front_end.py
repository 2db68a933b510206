"""A small real HTTP server that answers as the front-end's API does, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

AT = "2026-11-23T08:28:00.000Z"
END = "2026-11-23T08:28:03.500Z"

INSTANCE: dict[str, Any] = {
    "id": "01jdbtwx2m000000web0", "name": "web", "kind": "vm", "state": "running", "host": "h1",
    "addresses": ["198.18.17.100"], "cpu": 1.0, "memory_mib": 512, "disk_mib": 1024, "image": "tiny", "owner": "admin",
    "labels": {"tier": "front"}, "reason": None, "operation": None, "created_at": AT, "updated_at": AT,
}  # fmt: skip
STEPS: list[dict[str, Any]] = [
    {"sequence": n, "name": name, "host": "h1", "state": "done", "attempt": 1, "changed": True, "started_at": AT,
     "finished_at": END, "evidence": None, "error": None, "compensation": None}
    for n, name in enumerate(("image", "volumes", "define", "start"), 1)
]  # fmt: skip


def operation(state: str = "done", name: str = "web", verb: str = "deploy", **more: Any) -> dict[str, Any]:
    """Return an operation as the API shows it."""
    ended = state not in ("pending", "running", "compensating")
    return {
        "id": f"01jdbtwx2m00000op{name[:3]:0<3}", "request": "01jdbtwx2m0000000req", "verb": verb, "state": state,
        "subject": f"instance/01jdbtwx2m000000{name[:4]:0<4}", "name": name, "asked_by": "admin", "parameters": {},
        "reason": None, "error": None, "attempts": 1, "after": None, "cancel_requested": False, "flow_run": None,
        "not_before": None, "created_at": AT, "started_at": AT, "finished_at": END if ended else None,
        "steps": STEPS if state == "done" else [], **more,
    }  # fmt: skip


def error(code: str, message: str = "it went wrong", **more: Any) -> dict[str, Any]:
    """Return an error as the ledger and problem+json have it."""
    return {
        "code": code, "message": message, "subject": None, "evidence": {}, "fix": None, "safe_to_retry": False, **more,
    }  # fmt: skip


@dataclass
class Asked:
    """One request that came in."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


Answer = tuple[int, Any] | Callable[[Asked], tuple[int, Any]]


@dataclass
class FrontEnd:
    """routes: (method, path below /v1/) -> (status, JSON) or a function that makes them."""

    routes: dict[tuple[str, str], Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    drops: int = 0  # so many kept connections are closed without an answer
    connections: int = 0
    url: str = ""

    def on(self, method: str, path: str, status: int, body: Any) -> None:
        """Answer so."""
        self.routes[method, path] = (status, body)

    def deploys(self, *states: dict[str, Any]) -> None:
        """Accept instances, and show their operation in these states, one look after the other."""
        left = list(states)
        accepted = {"request": "r", "operations": [{k: v for k, v in states[0].items() if k != "steps"}]}
        self.on("POST", "instances", 202, accepted)
        self.routes["GET", "operations"] = lambda _: (200, [left.pop(0) if len(left) > 1 else left[0]])

    def last(self, method: str, path: str) -> Asked:
        """Return the last request of that kind."""
        return next(a for a in reversed(self.asked) if (a.method, a.path) == (method, path))

    def answer(self, asked: Asked) -> tuple[int, Any]:
        """Return what is told for a request."""
        self.asked.append(asked)
        nothing: Answer = (404, error("not-found", f"there is no {asked.path}"))
        found = self.routes.get((asked.method, asked.path), nothing)
        return found if isinstance(found, tuple) else found(asked)


def serve(front_end: FrontEnd) -> ThreadingHTTPServer:
    """Start it in a thread on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            BaseHTTPRequestHandler.setup(self)
            front_end.connections += 1
            self.answered = 0

        def _any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(size)
            if self.answered and front_end.drops:
                front_end.drops -= 1
                self.close_connection = True
                return
            self.answered += 1
            parts = urlsplit(self.path)
            query = {key: ",".join(values) for key, values in parse_qs(parts.query).items()}
            asked = Asked(
                self.command, parts.path.removeprefix("/v1/"), query, json.loads(content) if content else None,
                {key.lower(): value for key, value in self.headers.items()},
            )  # fmt: skip
            status, body = front_end.answer(asked)
            rows, following = body if isinstance(body, tuple) else (body, "")  # a page, and where the next one is
            data = rows if isinstance(rows, bytes) else b"" if rows is None else json.dumps(rows).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if following:
                self.send_header("Link", f'<{following}>; rel="next"')
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _any

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    front_end.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server
