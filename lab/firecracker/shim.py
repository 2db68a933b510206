"""What stands behind `firecracker` here: its API on a unix socket, an emulated QEMU microvm as the VM.

As Firecracker does, one process is one microVM and ends with it: the process that is started becomes QEMU (so that its
figures, its console and a SIGKILL are the VM's), a child of it answers the API. Faults have texts of our own.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.firecracker.api import Microvm, Refused, serve
from lab.firecracker.machine import QMP_FD

VERSION = "1.17.0-shim"
_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Run one microVM."""
    options = _options(arguments)
    if options.version:
        print(f"Firecracker v{VERSION} (an emulated QEMU microvm behind its API)")
        return 0
    root = os.environ.get("FIRECRACKER_SHIM_ROOT", "")  # of its jail: QEMU could not run in an empty one
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(root + options.api_sock)
    except OSError as error:
        print(f"the API socket cannot be bound: {error}", file=sys.stderr)
        return 1
    listener.listen()
    qmp, ours = socket.socketpair()
    go_out, go_in = os.pipe()
    if os.fork() == 0:
        _end_with_parent()
        os.close(go_out)
        qmp.close()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)  # the console is QEMU's
        vm = Microvm(options.id, root, ours, lambda argv: _go(go_in, argv), options.log_path, options.metrics_path)
        os._exit(_answer(vm, listener, options, go_in))
    os.close(go_in)
    ours.close()
    listener.close()
    return _become(qmp, go_out)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("firecracker")
    parser.add_argument("--version", action="store_true")
    for name in ("--config-file", "--metadata", "--log-path", "--metrics-path"):
        parser.add_argument(name, default="")
    parser.add_argument("--api-sock", default="/run/firecracker.socket")
    parser.add_argument("--id", default="anonymous-instance")
    return parser.parse_args(arguments)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)


def _answer(vm: Microvm, listener: socket.socket, options: argparse.Namespace, go_in: int) -> int:
    """Serve the API for ever. A configuration that is wrong ends the process, as Firecracker's does."""
    try:
        if options.metadata:
            vm.handle("PUT", "/mmds", json.loads(Path(vm.root + options.metadata).read_text()))
        if options.config_file:
            vm.configure(json.loads(Path(vm.root + options.config_file).read_text()))
    except (Refused, OSError, ValueError, KeyError) as error:
        vm.log(f"the configuration was refused: {error}")
        os.close(go_in)  # nothing comes any more
        return 1
    serve(vm, listener)
    return 0


def _go(go_in: int, argv: Sequence[str]) -> None:
    os.write(go_in, json.dumps(argv).encode() + b"\n")


def _become(qmp: socket.socket, go_out: int) -> int:
    """Wait for the command line of QEMU, and become it."""
    with os.fdopen(go_out) as told:
        line = told.readline()
    if not line:
        return 1
    os.dup2(qmp.fileno(), QMP_FD)
    os.set_inheritable(QMP_FD, True)
    argv = json.loads(line)
    os.execvp(argv[0], argv)
