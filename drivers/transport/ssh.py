"""One multiplexed SSH connection to one host, by asyncssh: commands, files, sockets, long-lived sessions.

At most `channels_per_connection` sessions are open at once (OpenSSH's MaxSessions is 10 by default), the rest
wait. Forwarded sockets are direct-streamlocal channels, which sshd does not count (docs/facts/transport.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shlex
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path, PurePosixPath

import asyncssh

from core.errors import CredentialRejected, HostFault, NotFound, Unreachable
from core.settings import DriverSettings
from drivers.transport.base import Endpoint, Progress, Result
from drivers.transport.errors import subject_of, translate
from drivers.transport.forward import Forward, socket_dir
from drivers.transport.hostkey import HostKey, host_key, scan_host_key

__all__ = ["HostKey", "SshTransport", "connect", "scan_host_key"]

_CHUNK_BYTES = 2**18
_GRACE_S = 3.0  # for a process that was asked to end
_OPEN_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_CIPHERS = ("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr")  # cheapest first

# $1 part file, $2 target, $3 mode, $4 size in bytes, $5 "keep": go on from what is there, keep it on failure.
# A cut connection looks like the end of the file, hence the check of the size before the rename.
_PUT = """set -eu; umask 077
if [ "$5" = keep ]; then cat >>"$1"; else trap 'rm -f "$1"' EXIT; cat >"$1"; fi
have=$(stat -c %s "$1"); [ "$have" -eq "$4" ] || { echo "got $have of $4 bytes" >&2; exit 74; }
chmod "$3" "$1"; mv -f "$1" "$2"
"""
_SAY_PID = 'echo "rackflow-pid $$" >&2; LC_ALL=C exec "$@"'
_PID = re.compile(rb"^rackflow-pid (\d+)\n", re.MULTILINE)


class _Client(asyncssh.SSHClient):
    """Remembers the host key that was shown, for the error message."""

    offered = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = host_key(key).fingerprint
        return False


async def connect(endpoint: Endpoint, settings: DriverSettings) -> SshTransport:
    """Connect and prove both sides. Raise Unreachable, CredentialRejected (also: no host key pinned)."""
    if not endpoint.host_key:
        raise CredentialRejected(
            f"no host key is pinned for {endpoint.name}", subject_of(endpoint), {"address": endpoint.address},
            "enroll the host and confirm its fingerprint",
        )
    client = _Client()
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            connection = await asyncssh.connect(
                endpoint.address, endpoint.port, username=endpoint.user, config=None, agent_path=None,
                client_factory=lambda: client, preferred_auth="publickey",
                client_keys=[str(endpoint.key_file)] if endpoint.key_file else (),
                known_hosts=([asyncssh.import_public_key(endpoint.host_key)], [], []),
                encryption_algs=_CIPHERS, compression_algs=None,
                keepalive_interval=settings.keepalive_interval_s,
                keepalive_count_max=settings.keepalive_count,
            )  # fmt: skip
    except (asyncssh.Error, asyncssh.KeyImportError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise CredentialRejected(
                f"the key file {endpoint.key_file} does not exist", subject_of(endpoint), {},
                "make it with ssh-keygen, or name another one",
            ) from error
        raise translate(error, endpoint, offered=client.offered) from error
    return SshTransport(endpoint, settings, connection)


class SshTransport:
    """Transport over one asyncssh connection."""

    def __init__(
        self, endpoint: Endpoint, settings: DriverSettings, connection: asyncssh.SSHClientConnection
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._connection = connection
        self._channels = asyncio.Semaphore(settings.channels_per_connection)
        self._forwards: dict[str, Forward] = {}
        self._forwarding = asyncio.Lock()
        self._sockets: Path | None = None

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def is_alive(self) -> bool:
        """Say whether a call could still succeed; a lost connection never comes back, a new one must be made."""
        return not self._connection.is_closed()

    # -- commands

    async def run(
        self, argv: Sequence[str], *, timeout_s: float = 60.0, stdin: bytes | None = None, sudo: bool = False,
        check: bool = True,
    ) -> Result:
        """Run argv, quoted. Raise Unreachable (also at the deadline), HostFault if check and exit != 0."""
        code, out, err = await self._execute(argv, stdin or b"", timeout_s, sudo)
        result = Result(tuple(argv), code, out.decode(errors="replace"), err.decode(errors="replace"))
        if check and code != 0:
            raise self._failed(result)
        return result

    async def _execute(
        self, argv: Sequence[str], stdin: bytes, timeout_s: float, sudo: bool
    ) -> tuple[int, bytes, bytes]:
        async with self._channels, self._process(argv, sudo, timeout_s) as process:
            async with self._deadline(process, argv, timeout_s):
                if not stdin:  # asyncssh closes it only after it has written something
                    process.stdin.write_eof()
                out, err = await process.communicate(stdin)
            return self._status(process, argv), out or b"", _PID.sub(b"", err or b"")

    def _line(self, argv: Sequence[str], sudo: bool, timeout_s: float | None) -> str:
        """Return the command line. It says its pid on stderr, and ends by itself a little after the deadline.

        sshd passes no signals to root's processes ("requires privilege separation", OpenSSH 9.2 session.c), nor
        can a user signal what sudo started. So a process is ended by its pid, over another channel.
        """
        limit = ["timeout", "-k", "5", f"{timeout_s + _GRACE_S:.0f}"] if timeout_s is not None else []
        return shlex.join([*self._sudo(sudo), "sh", "-c", _SAY_PID, "sh", *limit, *argv])

    def _sudo(self, wanted: bool) -> list[str]:
        return ["sudo", "-n"] if wanted and self._endpoint.user != "root" else []

    @contextlib.asynccontextmanager
    async def _process(
        self, argv: Sequence[str], sudo: bool, timeout_s: float | None
    ) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
        """Open a process; end it if it still runs when the context is left."""
        process = await self._open(self._line(argv, sudo, timeout_s))
        try:
            yield process
        finally:
            if process.exit_status is None and self.is_alive():
                await asyncio.shield(self._end(process, sudo))
            process.close()

    async def _open(self, line: str) -> asyncssh.SSHClientProcess[bytes]:
        # sshd counts a session for a moment after its channel has closed, so that ours may be one too many.
        for pause_s in _OPEN_PAUSES_S:
            with contextlib.suppress(asyncssh.ChannelOpenError):
                return await self._create(line)
            await asyncio.sleep(pause_s)
        try:
            return await self._create(line)
        except asyncssh.ChannelOpenError as error:
            raise translate(error, self._endpoint) from error

    async def _create(self, line: str) -> asyncssh.SSHClientProcess[bytes]:
        try:
            return await self._connection.create_process(line, encoding=None)
        except (asyncssh.Error, OSError) as error:
            if isinstance(error, asyncssh.ChannelOpenError) and self.is_alive():
                raise
            raise translate(error, self._endpoint, closed=not self.is_alive()) from error

    async def _end(self, process: asyncssh.SSHClientProcess[bytes], sudo: bool) -> None:
        said = _PID.search(process.collect_output()[1] or b"")
        with contextlib.suppress(asyncssh.Error, OSError):
            process.stdin.write_eof()
            if said:  # in one of the sessions that are kept free of the ordinary channels
                kill = [*self._sudo(sudo), "kill", said[1].decode()]
                await self._connection.run(shlex.join(kill), timeout=_GRACE_S)
                await asyncio.wait_for(process.wait_closed(), _GRACE_S)

    @contextlib.asynccontextmanager
    async def _deadline(
        self, process: asyncssh.SSHClientProcess[bytes], argv: Sequence[str], timeout_s: float
    ) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            raise Unreachable(
                f"{argv[0]} on {self._endpoint.name} did not end within {timeout_s:g} s",
                subject_of(self._endpoint), {"argv": list(argv), "timeout_s": timeout_s},
                "see what the host is busy with",
            ) from error
        except (asyncssh.Error, OSError) as error:
            if process.exit_status is None:
                raise translate(error, self._endpoint, closed=not self.is_alive()) from error

    def _status(self, process: asyncssh.SSHClientProcess[bytes], argv: Sequence[str]) -> int:
        status = process.exit_status
        if status is None:  # what asyncssh gives when the connection was lost in between
            raise Unreachable(
                f"the connection to {self._endpoint.name} was lost while {argv[0]} ran",
                subject_of(self._endpoint), {"argv": list(argv)}, "check the host and its network",
            )
        return int(process.returncode) if status == -1 and process.returncode is not None else int(status)

    def _failed(self, result: Result) -> HostFault:
        seen = (result.stderr.strip() or result.stdout.strip())[-2000:]
        last = seen.splitlines()[-1] if seen else f"exit code {result.exit_code}"
        return HostFault(
            f"{result.argv[0]} failed on {self._endpoint.name}: {last}", subject_of(self._endpoint),
            {"argv": list(result.argv), "exit_code": result.exit_code, "stderr": seen}, "see the evidence",
        )

    # -- files

    async def put(
        self, source: Path | bytes, target: str, *, mode: int = 0o644, resume: bool = False,
        sudo: bool = False, progress: Progress | None = None, timeout_s: float = 600.0,
    ) -> None:
        """Write a file, streamed into `cat` (one channel, errors in words, works with sudo), then renamed.

        resume goes on from what an earlier attempt left in .NAME.part. Raise HostFault (full), Unreachable.
        """
        size = len(source) if isinstance(source, bytes) else (await asyncio.to_thread(source.stat)).st_size
        path = PurePosixPath(target)
        mark = "" if resume else f".{secrets.token_hex(4)}"
        part = str(path.with_name(f".{path.name.lstrip('.')}{mark}.part"))
        offset = await self._resume_at(part, size, sudo) if resume else 0
        argv = ["sh", "-c", _PUT, "sh", part, target, f"{mode:o}", str(size), "keep" if resume else "new"]
        async with self._channels, self._process(argv, sudo, timeout_s) as process:
            async with self._deadline(process, ["put", target], timeout_s):
                await self._stream(process, source, offset, size, progress)
                process.stdin.write_eof()
            async with self._deadline(process, ["put", target], timeout_s):
                await process.wait_closed()
            err = _PID.sub(b"", await process.stderr.read()).decode(errors="replace")
            result = Result(("put", target), self._status(process, ["put", target]), "", err)
        if result.exit_code != 0:
            raise self._failed(result)

    async def _resume_at(self, part: str, size: int, sudo: bool) -> int:
        found = await self.run(["stat", "-c", "%s", part], sudo=sudo, check=False)
        have = int(found.stdout) if found.exit_code == 0 else 0
        if have > size:  # not ours: begin anew
            await self.run(["rm", "-f", part], sudo=sudo)
            return 0
        return have

    @staticmethod
    async def _stream(
        process: asyncssh.SSHClientProcess[bytes], source: Path | bytes, offset: int, size: int,
        progress: Progress | None,
    ) -> None:
        done = offset
        if isinstance(source, bytes):
            process.stdin.write(source[offset:])
            await process.stdin.drain()
            done = size
        else:
            with source.open("rb") as file:
                file.seek(offset)
                while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                    process.stdin.write(chunk)
                    await process.stdin.drain()
                    done += len(chunk)
                    if progress:
                        progress(done, size)
        if progress:
            progress(done, size)

    async def get(
        self, source: str, *, sudo: bool = False, max_bytes: int = 2**24, timeout_s: float = 60.0
    ) -> bytes:
        """Return the first max_bytes of a file. Raise NotFound, HostFault."""
        argv = ["head", "-c", str(max_bytes), "--", source]
        code, out, err = await self._execute(argv, b"", timeout_s, sudo)
        if code == 0:
            return out
        text = err.decode(errors="replace")
        if "No such file" in text:
            raise NotFound(f"{source} is not on {self._endpoint.name}", subject_of(self._endpoint))
        raise self._failed(Result(tuple(argv), code, "", text))

    # -- sockets and sessions

    async def forward(self, remote_socket: str) -> Path:
        """Return a local unix socket that leads to remote_socket; the same one when asked again."""
        async with self._forwarding:
            if not self.is_alive():
                raise translate(OSError("the connection is closed"), self._endpoint)
            known = self._forwards.get(remote_socket)
            if known is None:
                self._sockets = self._sockets or socket_dir()
                path = self._sockets / f"{len(self._forwards)}.sock"
                known = Forward(self._connection, remote_socket, path)
                await known.listen()
                self._forwards[remote_socket] = known
            return known.path

    def cut(self, remote_socket: str) -> None:
        """Close the connections that go through a forwarded socket, so that calls blocked on them end."""
        if remote_socket in self._forwards:
            self._forwards[remote_socket].cut()

    @contextlib.asynccontextmanager
    async def session(self, argv: Sequence[str], *, sudo: bool = False) -> AsyncIterator[SshSession]:
        """Open a long-lived command; it is ended when the context is left. It takes one of the channels."""
        async with self._channels, self._process(argv, sudo, None) as process:
            yield SshSession(self, process, argv)

    async def close(self) -> None:
        """Close everything; what is under way fails with Unreachable."""
        for known in self._forwards.values():
            known.close()
        self._connection.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connection.wait_closed(), _GRACE_S)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)


class SshSession:
    """A running remote command; stdin stays open until the context is left."""

    def __init__(
        self, transport: SshTransport, process: asyncssh.SSHClientProcess[bytes], argv: Sequence[str]
    ) -> None:
        self._transport = transport
        self._process = process
        self._argv = argv

    async def lines(self) -> AsyncIterator[str]:
        """Yield lines of stdout, without their ends, until the command closes it."""
        async for line in self._process.stdout:
            yield line.decode(errors="replace").rstrip("\r\n")

    async def write(self, data: bytes) -> None:
        """Write to its stdin. Raise Unreachable."""
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (asyncssh.Error, OSError) as error:
            raise translate(error, self._transport.endpoint, closed=True) from error

    async def wait(self) -> int:
        """Wait for its end and return the exit code. Raise Unreachable when the connection is lost."""
        await self._process.wait_closed()
        return self._transport._status(self._process, self._argv)

    def is_alive(self) -> bool:
        """Return whether it still runs, as far as is known here."""
        return self._process.exit_status is None and self._transport.is_alive()
