"""Where the front-end listens, and the token to speak to it.

RACKFLOW_URL with RACKFLOW_TOKEN or RACKFLOW_TOKEN_FILE; else what `rackflow up` wrote to endpoint.json in its
run folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rackflow_cli.errors import CliError, ExitCode

HINT = "start it with `rackflow up`, or set RACKFLOW_URL to where it runs"
_SYSTEM_RUN_DIR = Path("/run/rackflow")


@dataclass(frozen=True)
class Endpoint:
    """url: without a slash at its end; token: "" when there is none."""

    url: str
    token: str


def find() -> Endpoint:
    """Return the front-end to speak to. Raise CliError (unreachable) when none is known."""
    url = os.environ.get("RACKFLOW_URL", "").rstrip("/")
    written = _written()
    if not url and not written:
        missing = run_dir() / "endpoint.json"
        raise CliError(f"rackflow is not running here ({missing} is missing)", ExitCode.UNREACHABLE, fix=HINT)
    local = str(written.get("api", "")).rstrip("/")
    # The local token is sent to the local front-end only, never to another address from the environment.
    file = str(written.get("token_file") or "") if url in ("", local) else ""
    return Endpoint(url or local, _token(file))


def run_dir() -> Path:
    """Return the folder of sockets and pids: RACKFLOW_RUN_DIR, the configuration's, or the default."""
    named = os.environ.get("RACKFLOW_RUN_DIR") or _configured()
    if named:
        return Path(named).expanduser()
    if os.geteuid() == 0:
        return _SYSTEM_RUN_DIR
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "rackflow" if runtime else Path(f"/tmp/rackflow-{os.geteuid()}")


def _configured() -> str:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    default = Path("/etc") if os.geteuid() == 0 else home
    file = Path(os.environ.get("RACKFLOW_CONFIG") or default / "rackflow" / "config.toml")
    try:
        text = file.read_text()
    except OSError:
        return ""
    import tomllib

    try:
        return str(tomllib.loads(text).get("run_dir", ""))
    except tomllib.TOMLDecodeError:
        return ""  # `rackflow up` says what is wrong with it


def _written() -> dict[str, Any]:
    """Return endpoint.json of this user's rackflow, else of the system's, else nothing."""
    for folder in dict.fromkeys((run_dir(), _SYSTEM_RUN_DIR)):
        try:
            found = json.loads((folder / "endpoint.json").read_text())
        except (OSError, ValueError):
            found = None
        if isinstance(found, dict) and found.get("api"):
            return found
        if os.environ.get("RACKFLOW_RUN_DIR"):
            break
    return {}


def _token(local_file: str) -> str:
    if token := os.environ.get("RACKFLOW_TOKEN", "").strip():
        return _sound(token, "RACKFLOW_TOKEN")
    file = os.environ.get("RACKFLOW_TOKEN_FILE") or local_file
    if not file:
        return ""
    try:
        return _sound(Path(file).expanduser().read_text(errors="replace").strip(), file)
    except OSError as error:
        raise CliError(
            f"the token in {file} cannot be read: {error.strerror}", ExitCode.DENIED,
            fix="run as the user who started rackflow, or set RACKFLOW_TOKEN",
        ) from error  # fmt: skip


def _sound(token: str, source: str) -> str:
    """Return a token that a header can carry. Raise CliError."""
    if not (token.isascii() and token.isprintable()):
        raise CliError(f"what stands in {source} is no token", ExitCode.DENIED, fix="a token is plain text in one line")
    return token
