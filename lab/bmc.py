"""The BMCs of the lab's hosts: one small Redfish service on loopback, /redfish/v1/Systems/hN for each host.

    python -m lab.bmc LAB_DIR PORT      (lab/bmc_process.py starts it)

Of Redfish (DMTF DSP0266) there is what a client needs that reads a machine's power and orders a reset. As with a real
BMC an order is taken at once and carried out afterwards. Standard library only; docs/decisions/0009.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab import hosts, topology
from lab.bmc_process import USER, password
from lab.settings import load

ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
RESETS: Mapping[str, Sequence[str]] = {
    "On": ("start",), "ForceOff": ("crash",), "ForceRestart": ("crash", "start"),
}  # what `lab` is told to do  # fmt: skip
_MAX_BODY_BYTES = 2**16


@dataclass
class Rack:
    """What the service manages. systems: names; is_on: reads one's power; do: runs a verb of RESETS on one."""

    systems: Callable[[], list[str]]
    is_on: Callable[[str], bool]
    do: Callable[[str, str], None]
    password: str
    tokens: dict[str, str] = field(default_factory=dict)  # session id -> token
    orders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))  # one after the other

    def order(self, system: str, reset: str) -> None:
        """Take an order; it is carried out after those before it."""
        for verb in RESETS[reset]:
            self.orders.submit(self.do, verb, system)

    def admits(self, headers: Message) -> bool:
        """Check a session's token, else user and password."""
        token = headers.get("X-Auth-Token") or ""
        if token:
            return any(hmac.compare_digest(token.encode(), known.encode()) for known in self.tokens.values())
        kind, _, given = (headers.get("Authorization") or "").partition(" ")
        try:
            user, _, password = base64.b64decode(given).decode().partition(":")
        except ValueError:
            return False
        return kind == "Basic" and self.knows(user, password)

    def knows(self, user: str, password: str) -> bool:
        """Check user and password."""
        return user == USER and hmac.compare_digest(password.encode(), self.password.encode())


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One request."""

    rack: Rack  # set by `server`
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: orders are logged when they are carried out."""

    def do_GET(self) -> None:
        self._answer(lambda: (HTTPStatus.OK, self._resource(), {}))

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_DELETE(self) -> None:
        def delete() -> tuple[HTTPStatus, None, dict[str, str]]:
            self._require_known()
            if self.rack.tokens.pop(self._path().removeprefix(f"{SESSIONS}/"), None) is None:
                raise Refused(HTTPStatus.NOT_FOUND, f"no session {self.path}")
            return HTTPStatus.NO_CONTENT, None, {}

        self._answer(delete)

    def _path(self) -> str:
        return self.path.partition("?")[0].rstrip("/")

    def _require_known(self) -> None:
        if not self.rack.admits(self.headers):
            raise Refused(HTTPStatus.UNAUTHORIZED, "log in first")

    def _resource(self) -> dict[str, Any]:
        path = self._path()
        if path == ROOT:
            return root()
        self._require_known()
        if path == f"{ROOT}/SessionService":
            return _named(path, "SessionService") | {"ServiceEnabled": True, "Sessions": {"@odata.id": SESSIONS}}
        if path == SESSIONS:
            return collection(path, list(self.rack.tokens))
        if path == f"{ROOT}/Systems":
            return collection(path, self.rack.systems())
        name = path.removeprefix(f"{ROOT}/Systems/")
        return system(name, self.rack.is_on(self._known(name)))

    def _known(self, name: str) -> str:
        if name not in self.rack.systems():
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no {self.path}")
        return name

    def _post(self) -> tuple[HTTPStatus, dict[str, Any] | None, dict[str, str]]:
        body = self._body()
        if self._path() == SESSIONS:
            return self._log_in(str(body.get("UserName")), str(body.get("Password")))
        self._require_known()
        name, _, action = self._path().removeprefix(f"{ROOT}/Systems/").partition("/")
        if action != "Actions/ComputerSystem.Reset":
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no {self.path}")
        if body.get("ResetType") not in RESETS:
            raise Refused(HTTPStatus.BAD_REQUEST, f"ResetType is none of {', '.join(RESETS)}")
        self.rack.order(self._known(name), body["ResetType"])
        return HTTPStatus.NO_CONTENT, None, {}

    def _log_in(self, user: str, password: str) -> tuple[HTTPStatus, dict[str, Any], dict[str, str]]:
        if not self.rack.knows(user, password):
            raise Refused(HTTPStatus.UNAUTHORIZED, "wrong user or password")
        number, token = secrets.token_hex(4), secrets.token_hex(16)
        self.rack.tokens[number] = token
        path = f"{SESSIONS}/{number}"
        return HTTPStatus.CREATED, _named(path, "Session"), {"X-Auth-Token": token, "Location": path}

    def _body(self) -> dict[str, Any]:
        size = self.headers.get("Content-Length", "0")
        if not size.isdigit() or int(size) > _MAX_BODY_BYTES:
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is too large, or of unknown size")
        try:
            body = json.loads(self.rfile.read(int(size)) or b"{}")
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error
        if not isinstance(body, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is no object")
        return body

    def _answer(self, work: Callable[[], tuple[HTTPStatus, dict[str, Any] | None, dict[str, str]]]) -> None:
        try:
            status, body, headers = work()
        except Refused as error:
            status, headers = error.status, {}
            body = {"error": {"code": "Base.1.0.GeneralError", "message": str(error)}}
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "OData-Version": "4.0", "Connection": "close"}
        for name, value in {**headers, **fixed}.items():
            self.send_header(name, value)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _named(path: str, kind: str) -> dict[str, Any]:
    name = path.rsplit("/", 1)[1]
    return {"@odata.id": path, "@odata.type": f"#{kind}.v1_0_0.{kind}", "Id": name, "Name": name}


def root() -> dict[str, Any]:
    """Return the service's root, which tells where to log in."""
    links = {name: {"@odata.id": f"{ROOT}/{name}"} for name in ("Systems", "SessionService")}
    sessions = {"Links": {"Sessions": {"@odata.id": SESSIONS}}}
    return _named(ROOT, "ServiceRoot") | {"RedfishVersion": "1.6.0"} | links | sessions


def collection(path: str, names: Sequence[str]) -> dict[str, Any]:
    """Return a collection's members."""
    members = [{"@odata.id": f"{path}/{name}"} for name in names]
    return {"@odata.id": path, "Name": path, "Members": members, "Members@odata.count": len(members)}


def system(name: str, on: bool) -> dict[str, Any]:
    """Return a machine: its power, and the orders that it takes."""
    path = f"{ROOT}/Systems/{name}"
    reset = {
        "target": f"{path}/Actions/ComputerSystem.Reset", "ResetType@Redfish.AllowableValues": list(RESETS),
    }  # fmt: skip
    state = {"PowerState": "On" if on else "Off", "Actions": {"#ComputerSystem.Reset": reset}}
    return _named(path, "ComputerSystem") | state


def server(rack: Rack, port: int) -> ThreadingHTTPServer:
    """Return the service, bound to loopback; port 0: a free one."""
    made = ThreadingHTTPServer(("127.0.0.1", port), type("RackHandler", (Handler,), {"rack": rack}))
    made.daemon_threads = True
    return made


def main() -> None:
    """Serve the lab in LAB_DIR until the process ends."""
    os.environ["LAB_DIR"] = sys.argv[1]
    settings = load()

    def do(verb: str, name: str) -> None:
        """Call `lab` as a person would: it takes the machine's lab lock, and what it starts is not our child."""
        here = Path(__file__).resolve().parents[1]
        done = subprocess.run([sys.executable, "-m", "lab", verb, name], cwd=here, check=False)
        print(f"{verb} {name}: exit {done.returncode}", flush=True)

    def is_on(name: str) -> bool:
        return hosts.process_1(settings, topology.read(settings).host(name)) is not None

    def systems() -> list[str]:
        return [host.name for host in topology.read(settings).hosts]

    made = server(Rack(systems, is_on, do, password(settings)), int(sys.argv[2]))
    print("serving", flush=True)
    made.serve_forever()


if __name__ == "__main__":
    main()
