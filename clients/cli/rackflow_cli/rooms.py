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
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=False)
    if done.returncode == ExitCode.INTERRUPTED:
        raise CliError("interrupted", ExitCode.INTERRUPTED)
    told: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    if done.returncode:
        error = told.get("error") or {"message": f"{module} ended with exit code {done.returncode}"}
        found = from_problem(400, error)
        raise CliError(found.message, ExitCode(done.returncode) if told else ExitCode.FAILED, fix=found.fix)
    return told
