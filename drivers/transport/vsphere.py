"""A session with the API of an ESXi host or a vCenter, in the place of an SSH connection.

pyvmomi blocks: its calls run in a small thread pool of the host's own, and each request has the deadline of its socket,
so that one sick host never takes threads from the others. A session that is lost never comes back, as a lost SSH
connection does not: the pool of drivers opens a new one, and takes the host's lock anew with it.

The lock of the host is the session itself: the oldest of those whose user agent says that a worker holds this host. A
successor ends the session of a worker whose claim has run out, and with it all that this worker could still ask for.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pyVim.connect import SmartStubAdapter
from pyVmomi import vim

from core.errors import Busy, CredentialRejected, Invalid, RackflowError, Unreachable, Unsupported
from core.settings import DriverSettings
from drivers.hosts import HostFacts
from drivers.transport.base import ByteStream, Endpoint, Progress, Result, Session, Transport
from drivers.transport.certificate import pinned_context
from drivers.transport.tunnel import LOOPBACK, Tunnel, dig
from drivers.transport.vsphere_errors import SESSION_GONE, is_fault, translate
from drivers.transport.vsphere_facts import facts_of
from drivers.transport.vsphere_place import Place, find, read_one

T = TypeVar("T")
AGENT = "rackflow"
_TASK = ("info.state", "info.error", "info.result")  # all of info does not parse for tasks on files and snapshots
_LONGEST_PAUSE_S = 1.0


class VsphereTransport(Transport):
    """Runs functions of a ServiceContent, and waits for tasks. There is no shell behind it."""

    def __init__(
        self, endpoint: Endpoint, settings: DriverSettings, password: str, tunnel: Tunnel | None = None
    ) -> None:
        self._endpoint = endpoint
        self._tunnel = tunnel
        self._settings = settings
        self._password = password
        self._subject = f"host/{endpoint.name}"
        self._threads = ThreadPoolExecutor(settings.threads_per_host, thread_name_prefix=f"vsphere-{endpoint.name}")
        self._slots = asyncio.Semaphore(settings.threads_per_host)
        self._locking = asyncio.Lock()
        self._content: Any = None
        self._context: ssl.SSLContext | None = None
        self._place: Place | None = None
        self._worker = ""
        self._alive = threading.Event()  # set while a session stands

    # -- the session

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    def reached(self) -> tuple[str, int]:
        """Return address and port at which the API is spoken to from here."""
        e = self._endpoint
        return (e.address, e.port) if self._tunnel is None else (LOOPBACK, self._tunnel.port)

    @property
    def place(self) -> Place:
        """Return where in the inventory this host stands; known once it is connected."""
        assert self._place is not None
        return self._place

    @property
    def tls(self) -> ssl.SSLContext:
        """Return what trusts this server's pinned certificate and no other."""
        assert self._context is not None
        return self._context

    @property
    def cookie(self) -> str:
        """Return the session as an HTTP header's value, for files."""
        return str(self._content.sessionManager._stub.cookie)

    async def open(self) -> None:
        """Log in and find the place. Raise Unreachable, CredentialRejected, NotFound (no such place)."""
        await self._in_thread(f"connecting to {self._endpoint.address}", self._open)

    def _open(self) -> None:
        e, limit_s = self._endpoint, self._settings.connect_timeout_s
        self._context = pinned_context(*self.reached, e.host_key, self._subject, limit_s)
        self._content = self._log_in(AGENT)
        self._place = find(self._content, e.place, self._subject)

    def _log_in(self, agent: str) -> Any:
        address, port = self.reached
        stub = SmartStubAdapter(
            host=address, port=port, sslContext=self._context,
            customHeaders={"User-Agent": agent}, httpConnectionTimeout=self._settings.command_timeout_s,
        )  # fmt: skip
        content: Any = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
        content.sessionManager.Login(self._endpoint.user, self._password, None)
        self._alive.set()
        return content

    async def lock(self, worker: str, alive: Callable[[str], Awaitable[bool]]) -> None:
        """Hold the host's lock for a worker, as long as this session lives. Raise Busy, Unreachable."""
        async with self._locking:
            if self._worker == worker:
                return
            await self._in_thread("taking the lock of", lambda: self._log_in_as(worker))
            try:
                await self._put_out_others(worker, alive)
            except BaseException:
                self._alive.clear()  # the pool is to make a new one: this session would stand in others' way
                await self._in_thread("leaving", self._log_out)
                raise
            self._worker = worker

    def _log_in_as(self, worker: str) -> None:
        before = self._content
        self._content = self._log_in(f"{AGENT}/{worker}/{self._endpoint.name}")
        self._place = find(self._content, self._endpoint.place, self._subject)  # its objects belong to a session
        before.sessionManager.Logout()

    async def _put_out_others(self, worker: str, alive: Callable[[str], Awaitable[bool]]) -> None:
        for other, key in await self.call("looking who holds", self._older_holders):
            if other != worker and await alive(other):
                raise Busy(
                    f"host {self._endpoint.name} is held by another rackflow worker ({other})", self._subject,
                    {"worker": other, "session": key},
                    "stop the other rackflow, or wait until its claim has run out",
                )  # fmt: skip
            await self._put_out(key)

    async def _put_out(self, key: str) -> None:
        await self.call("putting out a dead worker of", lambda c: c.sessionManager.TerminateSession([key]))

    def _older_holders(self, content: Any) -> list[tuple[str, str]]:
        """Return (worker, session) of those that came before and hold this host."""
        found = read_one(content, content.sessionManager, ["currentSession", "sessionList"])
        mine = found["currentSession"]
        holders = []
        for one in found["sessionList"]:
            before, _, host = (one.userAgent or "").rpartition("/")
            if before.startswith(f"{AGENT}/") and host == self._endpoint.name:
                holders.append((one.loginTime, one.key, before.removeprefix(f"{AGENT}/")))
        at = (mine.loginTime, mine.key)
        return [(worker, key) for time, key, worker in sorted(holders) if (time, key) < at]

    # -- calls

    async def call(
        self, doing: str, work: Callable[[Any], T], *, subject: str = "", timeout_s: float | None = None
    ) -> T:
        """Run work(content) in a thread. doing: "starting", for messages. Raise what translate() says, Unreachable."""
        return await self._in_thread(doing, lambda: work(self._content), subject, timeout_s, needs_session=True)

    async def _in_thread(
        self, doing: str, work: Callable[[], T], subject: str = "", timeout_s: float | None = None,
        needs_session: bool = False,
    ) -> T:  # fmt: skip
        about, what = subject or self._subject, f"{doing} {self._endpoint.name}"
        if needs_session and not self._alive.is_set():
            raise Unreachable(f"{what}: the session is lost", about, fix="a new one is opened with the next step")
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        job = self._threads.submit(work)
        # A cancelled caller leaves its thread behind: the slot belongs to the job, not to the caller.
        job.add_done_callback(lambda _: _threadsafe(loop, self._slots.release))
        limit_s = timeout_s or self._settings.command_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(asyncio.wrap_future(job))
        except RackflowError:
            raise
        except TimeoutError as error:
            raise Unreachable(
                f"{what}: no answer within {limit_s:g} s", about, {"timeout_s": limit_s}, "see whether the API hangs"
            ) from error
        except Exception as error:
            if is_fault(error, SESSION_GONE):
                self._alive.clear()
            raise translate(error, about, what) from error

    async def task(
        self, doing: str, begin: Callable[[Any], Any], *, subject: str = "", timeout_s: float = 600.0
    ) -> Any:
        """Begin a task and wait for its end, without holding a thread meanwhile; return its result.

        Cancelled or late, the task goes on there. Raise what its fault says, Unreachable (late).
        """
        about = subject or self._subject
        task = await self.call(doing, begin, subject=subject)
        loop, pause_s = asyncio.get_running_loop(), 0.01
        end = loop.time() + timeout_s
        while loop.time() < end:
            info = await self.call(doing, lambda c: read_one(c, task, _TASK), subject=subject)
            if info.get("info.state") == "success":
                return info.get("info.result")
            if info.get("info.state") == "error":
                fault = info["info.error"]
                raise translate(fault, about, f"{doing} on {self._endpoint.name}") from fault
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        raise Unreachable(
            f"{doing} on {self._endpoint.name} did not end within {timeout_s:g} s", about, {"task": str(task)},
            "see the task in vSphere: it goes on",
        )  # fmt: skip

    def is_alive(self) -> bool:
        return self._alive.is_set() and (self._tunnel is None or self._tunnel.is_alive())

    async def close(self) -> None:
        """Log out. What is under way in threads ends with its socket's deadline."""
        try:
            await self._leave()
        finally:
            if self._tunnel is not None:
                await self._tunnel.close()

    async def _leave(self) -> None:
        if self._alive.is_set():
            self._alive.clear()
            with suppress(RackflowError):  # it ends by itself when it is idle
                await self._in_thread("leaving", self._log_out, timeout_s=2.0)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _log_out(self) -> None:
        self._content.sessionManager.Logout()

    async def facts(self) -> HostFacts:
        """Return what enrollment wants to know of the machines here. Raise Unreachable."""
        return await self.call("looking at", lambda c: facts_of(c, self.place))

    # -- what needs a shell

    def _no_shell(self) -> NoReturn:
        raise Unsupported(
            f"{self._endpoint.name} is spoken to by its API: there is no shell", self._subject,
            fix="use a host that is reached by SSH",
        )

    async def run(
        self, argv: Sequence[str], *, timeout_s: float = 60.0, stdin: bytes | None = None, sudo: bool = False,
        check: bool = True,
    ) -> Result:  # fmt: skip
        """Raise Unsupported."""
        self._no_shell()

    async def put(
        self, source: Path | bytes, target: str, *, mode: int = 0o644, resume: bool = False, sudo: bool = False,
        progress: Progress | None = None, timeout_s: float = 600.0,
    ) -> None:  # fmt: skip
        """Raise Unsupported: files go to datastores."""
        self._no_shell()

    async def get(self, source: str, *, sudo: bool = False, max_bytes: int = 2**24, timeout_s: float = 60.0) -> bytes:
        """Raise Unsupported."""
        self._no_shell()

    def read(self, argv: Sequence[str], *, sudo: bool = False, timeout_s: float = 600.0) -> AsyncIterator[bytes]:
        """Raise Unsupported."""
        self._no_shell()

    async def write(
        self, content: AsyncIterator[bytes], argv: Sequence[str], *, sudo: bool = False, timeout_s: float = 600.0
    ) -> Result:
        """Raise Unsupported."""
        self._no_shell()

    def connect(self, where: int | str) -> AbstractAsyncContextManager[ByteStream]:
        """Raise Unsupported."""
        self._no_shell()

    async def forward(self, remote_socket: str) -> Path:
        """Raise Unsupported."""
        self._no_shell()

    def cut(self, remote_socket: str) -> None:
        """Nothing is forwarded."""

    def session(self, argv: Sequence[str], *, sudo: bool = False) -> AbstractAsyncContextManager[Session]:
        """Raise Unsupported."""
        self._no_shell()


def _threadsafe(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)


async def connect(endpoint: Endpoint, settings: DriverSettings) -> VsphereTransport:
    """Open a session. Raise Invalid (no password file), Unreachable, CredentialRejected, NotFound (no such place)."""
    password = await asyncio.to_thread(_password, endpoint)
    tunnel = None
    if endpoint.way is not None:
        tunnel = await dig(endpoint.name, endpoint.way, endpoint.address, endpoint.port, settings)
    transport = VsphereTransport(endpoint, settings, password, tunnel)
    try:
        await transport.open()
    except BaseException:
        await transport.close()
        raise
    return transport


def _password(endpoint: Endpoint) -> str:
    if endpoint.key_file is None:
        raise Invalid(
            f"there is no password for {endpoint.name}", f"host/{endpoint.name}",
            fix="write it to a file on the front-end that only rackflow may read, and name it as password_file",
        )
    try:
        return endpoint.key_file.read_text().strip()
    except OSError as error:
        raise CredentialRejected(
            f"the password file {endpoint.key_file} of {endpoint.name} cannot be read: {error}",
            f"host/{endpoint.name}", {"path": str(endpoint.key_file)}, "write it, readable by rackflow",
        ) from error  # fmt: skip
