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
    given = ["-" if file == "-" else str(Path(file).expanduser()) for file in files]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "blueprints", "--json", "read", *given],
        stdin=sys.stdin if "-" in given else subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    try:
        error = json.loads(done.stderr)
    except ValueError:
        raise CliError("the blueprint could not be read", evidence={"said": done.stderr.strip()[-500:]}) from None
    count = len(error["evidence"].get("errors", ()))
    message = "the blueprint is not valid" if count == 1 else f"the blueprint is not valid: {count} errors"
    raise CliError(message, ExitCode.USAGE, fix=error["fix"] or "", evidence=error["evidence"])
