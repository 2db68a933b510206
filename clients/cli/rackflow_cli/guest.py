"""Inside an instance: SSH to its address, and its console log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rackflow_cli.connection import Api, part
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.session import talk

_SSH_FAILED = 255  # of OpenSSH itself, not of the command
_FOLLOW_EVERY_S = 1.0


def ssh_argv(instance: Mapping[str, Any], user: str, key: Path | None, command: Sequence[str]) -> list[str]:
    """Return the ssh command. Raise CliError when there is no address to go to.

    Addresses are used again by later instances, so host keys are kept under the instance's id.
    """
    addresses = instance.get("addresses") or []
    if not addresses:
        raise CliError(
            f"instance {instance['name']} has no address (it is {instance['state']})", ExitCode.CONFLICT,
            fix=f"look at `rackflow instance show {instance['name']}`",
        )  # fmt: skip
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "rackflow"
    options = {
        "HostKeyAlias": f"rackflow-{instance['id']}",
        "UserKnownHostsFile": str(state / "known_hosts"),
        "StrictHostKeyChecking": "accept-new",
        "ConnectTimeout": "10",
    }
    said = [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
    identity = ["-i", str(key)] if key else []
    return ["ssh", *said, *identity, "-l", user, str(addresses[0]).split("/")[0], *command]


def ssh_into(instance: Mapping[str, Any], user: str, key: Path | None, command: Sequence[str]) -> int:
    """Run ssh in the foreground and return its exit code."""
    argv = ssh_argv(instance, user, key, command)
    Path(next(word for word in argv if word.startswith("UserKnownHostsFile=")).split("=", 1)[1]).parent.mkdir(
        parents=True, exist_ok=True
    )
    try:
        code = subprocess.run(argv, check=False).returncode
    except FileNotFoundError as error:
        raise CliError("there is no `ssh` on this machine", fix="install the OpenSSH client") from error
    if code == _SSH_FAILED:
        talk(f"no login by SSH there? `rackflow instance exec {instance['name']} -- sh -c …` needs none")
    return code


def show_logs(api: Api, name: str, tail: int | None, follow: bool) -> None:
    """Print the console log; follow: go on with what comes until Ctrl-C."""
    path, query = f"instances/{part(name)}/logs", {"tail": tail}
    shown = _text(api.get(path, query))
    _write(shown if tail is None else "".join(shown.splitlines(keepends=True)[-tail:]))
    try:
        while follow:
            time.sleep(_FOLLOW_EVERY_S)
            now = _text(api.get(path, query))
            _write(fresh(shown, now))
            shown = now
    except KeyboardInterrupt:
        return


def fresh(before: str, now: str) -> str:
    """Return what was added, although the older part may have been cut off at its beginning."""
    if now.startswith(before):
        return now[len(before) :]
    for size in range(min(len(before), len(now)), 0, -1):
        if now.startswith(before[-size:]):
            return now[size:]
    return now


def _text(answer: Any) -> str:
    return str(answer["text"])


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
