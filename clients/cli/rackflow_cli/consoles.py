"""Consoles and screens of instances: a WebSocket to the front-end, opened with a one-time ticket."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rackflow_cli.connection import Api, part
from rackflow_cli.endpoint import HINT
from rackflow_cli.errors import CliError, ExitCode, from_problem
from rackflow_cli.output import Format, dump
from rackflow_cli.session import complain, talk

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection
    from websockets.sync.connection import Connection

ESCAPE = b"\x1d"  # Ctrl-], as telnet and virsh have it
_OPEN_TIMEOUT_S = 60.0  # the front-end may have to connect to the host first
_BYTES = 65536
_NORMAL = (1000, 1001, 1005)


def connect(api: Api, name: str, kind: str) -> ClientConnection:
    """Open an instance's console ("serial") or screen ("vnc"). Raise CliError."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect as open_socket

    ticket = api.post(f"instances/{part(name)}/console", {"kind": kind})
    url = "ws" + api.endpoint.url.removeprefix("http") + ticket["path"]
    try:
        return open_socket(url, max_size=None, compression=None, open_timeout=_OPEN_TIMEOUT_S, proxy=None)
    except InvalidStatus as error:
        raise _refused(error.response.status_code, bytes(error.response.body or b"")) from error
    except (OSError, InvalidHandshake) as error:
        raise CliError(f"the front-end opens no console: {error}", ExitCode.UNREACHABLE, fix=HINT) from error


def _refused(status: int, content: bytes) -> CliError:
    try:
        return from_problem(status, json.loads(content))
    except ValueError:
        return from_problem(status, {})


def tell_ticket(api: Api, name: str, form: Format) -> None:
    """Print where the hypervisor's own viewer finds an instance's screen; with -o json or yaml, the whole ticket."""
    found = api.post(f"instances/{part(name)}/console", {"kind": "ticket"})
    if form is not Format.TABLE:
        dump(found, form)
        return
    print(found["url"])
    fingerprint = found["fingerprint"] or "not told"
    talk(f"opens the screen of {name} once, soon, in a viewer of {found['protocol']}; the certificate: {fingerprint}")


class _Output(threading.Thread):
    """Writes what comes to standard output. ended: a pipe that is readable once the other side has closed."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(daemon=True)
        self.ended, self._end = os.pipe()
        self.last = time.monotonic()
        self.reason = ""
        self._connection = connection

    def run(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                message = self._connection.recv()
                self.last = time.monotonic()
                sys.stdout.buffer.write(message if isinstance(message, bytes) else message.encode())
                sys.stdout.buffer.flush()
        except ConnectionClosed as error:
            told = error.rcvd
            if told is None or told.code not in _NORMAL:
                self.reason = (told.reason if told else "") or "the connection was lost"
        except OSError:  # nobody reads our output any more
            pass
        finally:
            os.close(self._end)


def attach(api: Api, name: str, linger_s: float) -> None:
    """Join this terminal, or piped input, and an instance's serial console until one side ends. Raise CliError."""
    with connect(api, name, "serial") as connection:
        output = _Output(connection)
        stdin = sys.stdin.fileno()
        if os.isatty(stdin):
            talk(f"console of {name}; Ctrl-] leaves it")
        with _raw(stdin):
            output.start()  # not before: what is typed in answer would be lost
            _type(connection, output, stdin, linger_s)
    output.join()
    os.close(output.ended)
    if output.reason:
        raise CliError(f"the console of {name} ended: {output.reason}", ExitCode.UNREACHABLE)


def _type(connection: Connection, output: _Output, stdin: int, linger_s: float) -> None:
    from websockets.exceptions import ConnectionClosed

    interactive = os.isatty(stdin)
    with suppress(ConnectionClosed):  # output tells why
        while output.ended not in (ready := select.select([stdin, output.ended], [], [])[0]):
            data = os.read(ready[0], _BYTES)
            typed, left, _ = data.partition(ESCAPE) if interactive else (data, b"", b"")
            if typed:
                connection.send(typed)
            if left or (interactive and not data):
                return
            if not data:
                break
        _linger(output, linger_s)


def _linger(output: _Output, linger_s: float) -> None:
    """Wait until nothing has come for a while, or the other side has closed."""
    since = time.monotonic()
    while (left_s := max(since, output.last) + linger_s - time.monotonic()) > 0:
        if select.select([output.ended], [], [], left_s)[0]:
            return


@contextmanager
def _raw(stdin: int) -> Iterator[None]:
    """Hand every key on as it is; the terminal is put back whatever happens."""
    if not os.isatty(stdin):
        yield
        return
    before = termios.tcgetattr(stdin)
    try:
        tty.setraw(stdin)
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def serve_screen(api: Api, name: str, port: int) -> None:
    """Listen on a local port and lead one VNC viewer after the other to an instance's screen, until Ctrl-C.

    The address goes to standard output. Raise CliError.
    """
    api.post(f"instances/{part(name)}/console", {"kind": "vnc"})  # whether it has one is told before anybody connects
    try:
        server = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise CliError(f"port {port} cannot be opened: {error.strerror}", ExitCode.USAGE, fix="take another") from error
    with server, suppress(KeyboardInterrupt):
        print(f"127.0.0.1:{server.getsockname()[1]}", flush=True)
        talk(f"screen of {name}: point a VNC viewer there; Ctrl-C ends it")
        while True:
            viewer, _ = server.accept()
            with viewer:
                try:
                    _lead(viewer, connect(api, name, "vnc"))
                except CliError as error:
                    complain(error)


def _lead(viewer: socket.socket, connection: Connection) -> None:
    from websockets.exceptions import ConnectionClosed

    with connection:
        back = threading.Thread(target=_back, args=(connection, viewer), daemon=True)
        back.start()
        with suppress(OSError, ConnectionClosed):
            while data := viewer.recv(_BYTES):
                connection.send(data)
    back.join()


def _back(connection: Connection, viewer: socket.socket) -> None:
    """Hand on what comes; then end the viewer's side, so that it is not waited for."""
    with suppress(OSError):
        for message in connection:
            viewer.sendall(message if isinstance(message, bytes) else message.encode())
        viewer.shutdown(socket.SHUT_RDWR)
