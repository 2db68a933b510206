"""Blueprint files, read and judged by the room that knows them, started as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rackflow_cli.errors import CliError, ExitCode


def read(files: Sequence[str]) -> dict[str, Any]:
    """Return several blueprint files ("-" is standard input) as one. Raise CliError with every error's line."""
    found: dict[str, Any] = _judged("read", files, "the blueprint")
    return found


def machines(files: Sequence[str]) -> list[dict[str, Any]]:
    """Return the machines of files, YAML or CSV. Raise CliError with every error's line."""
    found: list[dict[str, Any]] = _judged("machines", files, "the list of machines")
    return found


def _judged(verb: str, files: Sequence[str], what: str) -> Any:
    given = ["-" if file == "-" else str(Path(file).expanduser()) for file in files]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "blueprints", "--json", verb, *given],
        stdin=sys.stdin if "-" in given else subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return json.loads(done.stdout)
    try:
        error = json.loads(done.stderr)
    except ValueError:
        raise CliError(f"{what} could not be read", evidence={"said": done.stderr.strip()[-500:]}) from None
    count = len(error["evidence"].get("errors", ()))
    message = f"{what} is not valid" if count == 1 else f"{what} is not valid: {count} errors"
    raise CliError(message, ExitCode.USAGE, fix=error["fix"] or "", evidence=error["evidence"])
