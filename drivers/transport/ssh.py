"""One multiplexed SSH connection to one host, by asyncssh: commands, files, sockets, long-lived sessions.

At most `channels_per_connection` sessions are open at once (OpenSSH's MaxSessions is 10 by default), the rest
wait (channels.py). Forwarded sockets are direct-streamlocal channels, which sshd does not count
(docs/facts/transport.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path, PurePosixPath

import asyncssh

from core.errors import CredentialRejected, HostFault, NotFound
from core.settings import DriverSettings
from drivers.parts import PART_GOES
from drivers.transport.base import Endpoint, Progress, Result, socket_name
from drivers.transport.channels import Kind, kind_of
from drivers.transport.errors import failed, subject_of, translate
from drivers.transport.forward import Forward, socket_dir
from drivers.transport.hostkey import host_key, scan_host_key
from drivers.transport.processes import GRACE_S, Process, Processes, without_pid
from drivers.transport.session import SshSession
from drivers.transport.streams import SshStream, close_late, nobody_listens, read_from, write_to

__all__ = ["SshTransport", "connect", "scan_host_key"]

_CHUNK_BYTES = 2**18
_CIPHERS = ("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr")  # cheapest first

# $1 part file, $2 target, $3 mode, $4 size in bytes, $5 "keep": go on from what is there, keep it on failure.
# A cut connection looks like the end of the file, hence the check of the size before the rename.
_PUT = f"""set -eu; umask 077; part=$1
if [ "$5" = keep ]; then cat >>"$part"
else {PART_GOES}cat >"$part"; fi
have=$(stat -c %s "$part"); [ "$have" -eq "$4" ] || {{ echo "got $have of $4 bytes" >&2; exit 74; }}
chmod "$3" "$part"; sync "$part"; mv -f "$part" "$2"
"""


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
        self._processes = Processes(endpoint, settings, connection)
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
        """Run argv, quoted. Raise Unreachable (also at the deadline), Busy, HostFault if check and exit != 0."""
        code, out, err = await self._execute(argv, stdin or b"", timeout_s, sudo)
        result = Result(tuple(argv), code, out.decode(errors="replace"), err.decode(errors="replace"))
        if check and code != 0:
            raise failed(self._endpoint, result)
        return result

    async def _execute(
        self, argv: Sequence[str], stdin: bytes, timeout_s: float, sudo: bool
    ) -> tuple[int, bytes, bytes]:
        async with self._processes.process(argv, sudo, timeout_s, kind_of(timeout_s)) as process:
            async with self._processes.deadline(argv, timeout_s):
                if not stdin:  # asyncssh closes it only after it has written something
                    process.stdin.write_eof()
                out, err = await process.communicate(stdin)
            return self._processes.status(process, argv), out or b"", without_pid(err)

    # -- files

    async def put(
        self, source: Path | bytes, target: str, *, mode: int = 0o644, resume: bool = False,
        sudo: bool = False, progress: Progress | None = None, timeout_s: float = 600.0,
    ) -> None:
        """Write a file, streamed into `cat` (one channel, errors in words, works with sudo), then renamed.

        resume goes on from what an earlier attempt left in .NAME.part. Raise HostFault (full), Unreachable.
        """
        size = len(source) if isinstance(source, bytes) else await asyncio.to_thread(_size, source)
        path = PurePosixPath(target)
        mark = "" if resume else f".{secrets.token_hex(4)}"
        part = str(path.with_name(f".{path.name.lstrip('.')}{mark}.part"))
        offset = await self._resume_at(part, size, sudo) if resume else 0
        argv = ["sh", "-c", _PUT, "sh", part, target, f"{mode:o}", str(size), "keep" if resume else "new"]
        kind = Kind.SHORT if isinstance(source, bytes) else Kind.WRITE
        async with self._processes.process(argv, sudo, timeout_s, kind) as process:
            async with self._processes.deadline(["put", target], timeout_s):
                with contextlib.suppress(BrokenPipeError):  # it ended early, and says why
                    await self._stream(process, source, offset, size, progress)
                    process.stdin.write_eof()
                await process.wait_closed()
            err = without_pid(await process.stderr.read()).decode(errors="replace")
            result = Result(("put", target), self._processes.status(process, ["put", target]), "", err)
        if result.exit_code != 0:
            raise failed(self._endpoint, result)

    async def _resume_at(self, part: str, size: int, sudo: bool) -> int:
        found = await self.run(["stat", "-c", "%s", part], sudo=sudo, check=False)
        have = int(found.stdout) if found.exit_code == 0 else 0
        if have > size:  # not ours: begin anew
            await self.run(["rm", "-f", part], sudo=sudo)
            return 0
        return have

    @staticmethod
    async def _stream(
        process: Process, source: Path | bytes, offset: int, size: int,
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
        raise failed(self._endpoint, Result(tuple(argv), code, "", text))

    # -- streams

    def read(self, argv: Sequence[str], *, sudo: bool = False, timeout_s: float = 600.0) -> AsyncGenerator[bytes, None]:
        """Yield what a command prints. Raise HostFault when it ends badly, Unreachable. Left early, it is ended."""
        return read_from(self._processes, self._endpoint, argv, sudo, timeout_s)

    async def write(
        self, content: AsyncIterator[bytes], argv: Sequence[str], *, sudo: bool = False, timeout_s: float = 600.0
    ) -> Result:
        """Give content to a command's stdin. Raise HostFault, Unreachable, or content's error once it is ended.

        A cut connection looks like the end of content there: the command has to check what it got.
        """
        return await write_to(self._processes, self._endpoint, content, argv, sudo, timeout_s)

    @contextlib.asynccontextmanager
    async def connect(self, where: int | str) -> AsyncIterator[SshStream]:
        """Open a connection to a TCP port or a unix socket. Raise HostFault (nobody listens), Unreachable."""
        opening = asyncio.ensure_future(
            self._connection.open_connection("127.0.0.1", where) if isinstance(where, int)
            else self._connection.open_unix_connection(where)
        )  # fmt: skip
        try:
            async with self._processes.deadline([socket_name(where)], self._settings.connect_timeout_s):
                reader, writer = await asyncio.shield(opening)
        except BaseException as error:
            opening.add_done_callback(close_late)  # cancelled, it opens all the same
            cause = error.__cause__
            if isinstance(cause, asyncssh.ChannelOpenError) and self.is_alive():
                raise nobody_listens(self._endpoint, where, cause) from cause
            raise
        try:
            yield SshStream(self._endpoint, reader, writer, self.is_alive)
        finally:
            writer.close()

    async def lead(self, address: str, port: int) -> int:
        """Return a port of this machine's loopback that leads to an address as the host sees it, while this lives.

        Raise HostFault (the host does not let us, or nobody is there), Unreachable.
        """
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                _, writer = await self._connection.open_connection(address, port, encoding=None)
                writer.close()
                listener = await self._connection.forward_local_port("127.0.0.1", 0, address, port)
        except asyncssh.ChannelOpenError as error:
            raise HostFault(
                f"SSH on {self._endpoint.address} does not lead to {address}:{port}: {error.reason}",
                subject_of(self._endpoint), {"seen": error.reason},
                "let its sshd forward (AllowTcpForwarding yes in sshd_config), and see who listens there",
            ) from error  # fmt: skip
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise translate(error, self._endpoint) from error
        return listener.get_port()

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
        async with self._processes.process(argv, sudo, None, Kind.SESSION) as process:
            yield SshSession(self._processes, self._endpoint, process, argv)

    async def close(self) -> None:
        """Close everything; what is under way fails with Unreachable."""
        for known in self._forwards.values():
            known.close()
        self._connection.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connection.wait_closed(), GRACE_S)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path} on the front-end", "", {"path": str(path)}) from error
