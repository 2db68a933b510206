"""Questions that a process of rackflow's rooms on this machine answers: JSON in, JSON out, progress on stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from rackflow_cli.errors import CliError, ExitCode, from_problem


def ask(module: str, question: dict[str, Any]) -> dict[str, Any]:
    """Have an answer worked out by `python -m MODULE`; -P: a folder of that name here is not taken. Raise CliError."""
    argv = [sys.executable, "-P", "-m", module, json.dumps(question)]
    code, out = _run(argv)
    if code == ExitCode.INTERRUPTED:
        raise CliError("interrupted", ExitCode.INTERRUPTED)
    told: dict[str, Any] = json.loads(out) if out else {}
    if code:
        error = told.get("error") or {"message": f"{module} ended with exit code {code}"}
        found = from_problem(400, error)
        raise CliError(found.message, ExitCode(code) if told else ExitCode.FAILED, fix=found.fix)
    return told


def _run(argv: list[str]) -> tuple[int, bytes]:
    """Run a process to its end, also after Ctrl-C: it may have things to take away. A second one ends it."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            out = process.communicate()[0]
            return process.returncode, out
        except KeyboardInterrupt:
            process.terminate()
            try:
                process.communicate()
            finally:
                process.kill()
    return ExitCode.INTERRUPTED, b""
