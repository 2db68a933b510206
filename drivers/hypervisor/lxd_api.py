"""LXD's REST API over a forwarded unix socket, through pylxd, from async code.

pylxd blocks, so every call runs in one of the host's own threads: few for reads, more for changes, which spend their
time waiting for LXD's operation to end (GET …/wait, answered when it has; nothing polls). Each thread keeps one
connection open, that is one SSH channel.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pylxd
import requests
from pylxd.client import get_session_for_url
from pylxd.models import Instance

from core.errors import Busy, RackflowError, Unreachable
from core.settings import DriverSettings
from drivers.hypervisor.lxd_errors import translate

T = TypeVar("T")
READ_S = 30.0
CHANGE_S = 100.0  # LXD's operation may take that long
CHANGES_AT_ONCE = 16
_MARGIN_S = 5.0
_NO_COMMAND = {"Command not found": 127, "Command not executable": 126}  # LXD's words; exit codes as a shell's


class _Sessions:
    """Stands in for one requests.Session: gives each thread its own, and each call a deadline."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._mine = threading.local()

    def deadline(self, timeout_s: float) -> None:
        """Let the next calls of this thread wait that long for an answer."""
        self._mine.timeout_s = timeout_s

    def __getattr__(self, method: str) -> Callable[..., requests.Response]:
        def call(url: str, **options: Any) -> requests.Response:
            options["timeout"] = options.get("timeout") or getattr(self._mine, "timeout_s", READ_S)
            return self._session().request(method, url, **options)

        return call

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._mine, "session", None)
        if session is None:
            session = self._mine.session = get_session_for_url(self._url)
            session.trust_env = False  # no proxy, no .netrc: it is a socket
        return session


class LxdApi:
    """The API of one host. Raise our errors only; subject: "instance/ID" or "host/NAME"."""

    def __init__(self, socket: Path, host: str, settings: DriverSettings, cut: Callable[[], None]) -> None:
        """cut: closes the forwarded socket's connections, for calls that outlive their deadline."""
        self.host = host
        self.socket = socket
        self._url = f"http+unix://{quote(str(socket), safe='')}"
        self._cut = cut
        self._sessions = _Sessions(self._url)
        self._reads = ThreadPoolExecutor(settings.threads_per_host, f"lxd-{host}-read")
        self._changes = ThreadPoolExecutor(CHANGES_AT_ONCE, f"lxd-{host}-change")
        self._client: pylxd.Client | None = None
        self._opening = threading.Lock()
        self._closed = False
        self.problem: RackflowError | None = None  # raised by every call

    async def get(self, *path: str, subject: str = "", **query: Any) -> Any:
        """Return the metadata of a GET; text for what is not JSON (logs)."""
        return await self._in(self._reads, f"get {'/'.join(path)}", subject, READ_S, lambda: self._get(path, query))

    async def find(self, *path: str, subject: str = "", **query: Any) -> Any | None:
        """Return the metadata of a GET, None where there is nothing."""

        def call() -> Any | None:
            try:
                return self._get(path, query)
            except pylxd.exceptions.NotFound:
                return None

        return await self._in(self._reads, f"get {'/'.join(path)}", subject, READ_S, call)

    async def change(
        self, method: str, *path: str, json: dict[str, Any] | None = None, subject: str = "", doing: str = "",
        timeout_s: float = CHANGE_S,
    ) -> Any:
        """Send a change and wait until LXD has made it; return what the operation says."""
        doing = doing or f"{method} {'/'.join(path)}"
        return await self._in(
            self._changes, doing, subject, timeout_s + _MARGIN_S, lambda: self._change(method, path, json, timeout_s)
        )

    async def begin(
        self, method: str, *path: str, json: dict[str, Any], subject: str, doing: str
    ) -> dict[str, Any]:
        """Begin an operation that lasts as long as its websockets do; return it."""

        def call() -> dict[str, Any]:
            return dict(getattr(self._node(path), method)(json=json).json()["metadata"])

        return await self._in(self._changes, doing, subject, READ_S, call)

    async def wait(self, operation: str, *, subject: str, timeout_s: float = CHANGE_S) -> None:
        """Wait for an operation that somebody began; how it ends is not our matter."""

        def call() -> None:
            try:
                self._wait(operation, timeout_s)
            except pylxd.exceptions.LXDAPIException:
                return

        await self._in(self._changes, f"wait for {operation}", subject, timeout_s + _MARGIN_S, call)

    async def execute(
        self, name: str, argv: list[str], stdin: bytes, *, subject: str, timeout_s: float
    ) -> tuple[int, bytes, bytes]:
        """Run argv in an instance over websockets; return exit code, stdout, stderr."""

        def call() -> tuple[int, bytes, bytes]:
            instance = Instance(self._connected(), name=name)
            try:
                found = instance.execute(argv, decode=False, stdin_payload=stdin)
            except pylxd.exceptions.LXDAPIException as error:
                if str(error) not in _NO_COMMAND:
                    raise
                return _NO_COMMAND[str(error)], b"", f"{argv[0]}: {error}\n".encode()
            return found.exit_code, found.stdout, found.stderr

        return await self._in(self._changes, f"exec in {name}", subject, timeout_s, call)

    def close(self) -> None:
        """Take no further calls; those under way end with the transport."""
        self._closed = True
        self._reads.shutdown(wait=False, cancel_futures=True)
        self._changes.shutdown(wait=False, cancel_futures=True)

    # in a thread of the host

    def _connected(self) -> pylxd.Client:
        with self._opening:  # pylxd asks the server who it is when it is made: once per connection
            if self._client is None:
                self._client = pylxd.Client(self._url, session=self._sessions)
            return self._client

    def _node(self, path: tuple[str, ...]) -> Any:
        return reduce(lambda node, part: node[part], path, self._connected().api)

    def _get(self, path: tuple[str, ...], query: dict[str, Any]) -> Any:
        response = self._node(path).get(params=query, is_api=False)  # else pylxd takes a log for an answer
        if response.headers.get("content-type", "").startswith("application/json"):
            return response.json()["metadata"]
        return response.content.decode(errors="replace")

    def _change(self, method: str, path: tuple[str, ...], json: dict[str, Any] | None, timeout_s: float) -> Any:
        body = getattr(self._node(path), method)(json=json).json()
        return self._wait(body["operation"], timeout_s) if body["type"] == "async" else body["metadata"]

    def _wait(self, operation: str, timeout_s: float) -> Any:
        number = operation.rpartition("/")[2]
        response = self._node(("operations", number, "wait")).get(params={"timeout": int(timeout_s)})
        found = response.json()["metadata"]
        if found["status_code"] == 103:
            raise Busy(f"LXD on {self.host} still does this after {timeout_s:g} s: {found['description']}")
        if found["status_code"] >= 400:
            raise pylxd.exceptions.LXDAPIException(response)
        return found

    # between the event loop and the threads

    async def _in(
        self, pool: ThreadPoolExecutor, doing: str, subject: str, timeout_s: float, call: Callable[[], T]
    ) -> T:
        """Run call in a thread. A killed coroutine leaves it: it ends by itself, and the next look sees its work."""

        begun = threading.Event()

        def run() -> T:
            begun.set()
            self._sessions.deadline(timeout_s)
            return call()

        subject = subject or f"host/{self.host}"
        if self._closed:
            raise Unreachable(f"the connection to LXD on {self.host} is closed", subject)
        if self.problem is not None:
            raise self.problem
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s + _MARGIN_S):
                return await loop.run_in_executor(pool, run)
        except RackflowError as error:
            error.subject = error.subject or subject
            raise
        except Exception as error:  # whatever a library raises; all become one of ours
            if isinstance(error, TimeoutError) and begun.is_set():
                self._cut()
            raise translate(error, self.host, subject, doing) from error
