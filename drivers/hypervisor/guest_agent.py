"""Run a command in a VM by QEMU's guest agent. Protocol: https://qemu-project.gitlab.io/qemu/interop/qemu-ga-ref.html"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import libvirt
import libvirt_qemu

from drivers.hypervisor.base import ExecResult

COMMAND_NOT_FOUND = 127  # what a shell says of a command that is not there
_ANSWER_S = 10  # for the agent itself; under emulation it is slow


def start_request(argv: Sequence[str], stdin: bytes) -> dict[str, Any]:
    """Return the request that starts argv in the guest."""
    arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
    if stdin:
        arguments["input-data"] = base64.b64encode(stdin).decode()
    return {"execute": "guest-exec", "arguments": arguments}


def status_request(pid: int) -> dict[str, Any]:
    """Return the request that asks how a started command does."""
    return {"execute": "guest-exec-status", "arguments": {"pid": pid}}


def result(status: Mapping[str, Any]) -> ExecResult | None:
    """Return how a command ended, or None while it runs. A signal counts as 128 + its number, as in a shell."""
    if not status.get("exited"):
        return None
    code = status.get("exitcode", 128 + int(status.get("signal", 0)))
    out, err = (base64.b64decode(status.get(key, "")).decode(errors="replace") for key in ("out-data", "err-data"))
    return ExecResult(int(code), out, err)


def ask(domain: Any, request: Mapping[str, Any]) -> Any:
    """Send one request and return what the agent answers; None if the command is not there. Blocks."""
    try:
        return json.loads(libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), _ANSWER_S, 0))["return"]
    except libvirt.libvirtError as error:
        if "Failed to execute child process" in str(error):
            return None
        raise
