"""Run the system's own tools (ip, mount, mkfs), with an error that says what they said."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from core.errors import HostFault


def run(
    argv: Sequence[str], *, timeout_s: float = 60.0, check: bool = True, env: Mapping[str, str] | None = None
) -> str:
    """Return standard output. Raise HostFault on exit != 0 (unless check is off) or a deadline."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout_s, env=env, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        fix = "python -m lab preflight says what is missing"
        raise HostFault(f"{argv[0]} is not installed", "lab", fix=fix) from error
    except subprocess.TimeoutExpired as error:
        raise HostFault(f"{' '.join(argv)} did not end within {timeout_s:g} s", "lab") from error
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise HostFault(f"{' '.join(argv)} failed: {said}", "lab", {"exit_code": done.returncode})
    return done.stdout


def ip(*commands: str, netns: str = "", check: bool = True) -> None:
    """Run `ip` once for each command (words apart by blanks), in a network namespace if named."""
    prefix = ["ip", "-n", netns] if netns else ["ip"]
    for command in commands:
        run([*prefix, *command.split()], check=check)
