"""The scripts that write a part, ended by a signal at any moment, run by a real sh under a real timeout."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from drivers.parts import PART_GOES

ROUNDS = 30
OLD = """trap 'rm -f "$part"' EXIT; trap 'exit 1' HUP INT PIPE TERM\n"""


def ended(script: str, part: Path, after_s: float) -> None:
    """Run a script that takes content to $1 as hosts do, end its whole group after a time, and then its content."""
    process = subprocess.Popen(
        ["timeout", "-k", "5", "60", "sh", "-c", f'set -eu; part=$1\n{script}cat >"$part"', "sh", str(part)],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    time.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.stdin.close()
    process.wait(10)
    for _ in range(200):  # `timeout` does not wait for sh if the signal comes just as it forks
        if not subprocess.run(["pgrep", "-f", f" {part}$"], capture_output=True).stdout:
            return
        time.sleep(0.02)
    pytest.fail(f"what writes {part} still runs")


def test_a_part_goes_whenever_its_writer_is_ended(tmp_path: Path) -> None:
    for round in range(ROUNDS):
        ended(PART_GOES, tmp_path / f"part{round}", random.uniform(0, 0.02))
    assert sorted(tmp_path.iterdir()) == []


def test_a_part_goes_when_a_second_signal_comes_with_its_rm(tmp_path: Path) -> None:
    """Without being deaf from the first signal on, rm itself is ended by the second."""
    part = tmp_path / "part"
    rm = tmp_path / "rm"
    rm.write_text(
        f"""#!/bin/sh
[ ! -e "{tmp_path}/did" ] || exit 0
: >"{tmp_path}/did"
kill -TERM $PPID $$
exec /bin/rm "$@"
"""
    )
    rm.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for script, left in ((PART_GOES, False), (OLD, True)):
        subprocess.run(["sh", "-c", f'part={part}\n{script}: >"$part"; kill -TERM $$'], env=path, check=False)
        assert part.exists() == left
        (tmp_path / "did").unlink()
