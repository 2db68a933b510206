"""The script that copies a disk of what is off, with a qemu-img that takes its time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from drivers.hypervisor.kvm_backup import _CONVERT

SLOW = """#!/bin/sh
for target; do :; done
exec 3>"$target"
echo half >&3
for _ in $(seq 500); do [ ! -e "$GO" ] || break; sleep 0.02; done
echo whole >&3
"""


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def copy(folder: Path, mark: str) -> subprocess.Popen[bytes]:
    """Begin a copy, which comes to its end when the file that bears its mark is there."""
    tool = folder / "bin" / "qemu-img"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(SLOW)
    tool.chmod(0o755)
    env = {"PATH": f"{tool.parent}:{os.environ['PATH']}", "GO": str(folder / mark)}
    argv = ["sh", "-c", _CONVERT, "sh", str(folder / "disk"), "qcow2", str(folder / "scratch" / "root.qcow2"), mark]
    return subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL)


def parts(folder: Path) -> list[Path]:
    return list((folder / "scratch").glob("*.part"))


def test_a_copy_that_nobody_waits_for_any_more_does_not_pass_for_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    old = copy(tmp_path, "a1")
    until(lambda: parts(tmp_path))
    before = parts(tmp_path)
    new = copy(tmp_path, "b2")
    until(lambda: parts(tmp_path) and not before[0].exists())
    (tmp_path / "a1").touch()
    assert old.wait(10) != 0
    assert not (tmp_path / "scratch" / "root.qcow2").exists(), "half of the new one was given the name"
    (tmp_path / "b2").touch()
    assert new.wait(10) == 0
    assert (tmp_path / "scratch" / "root.qcow2").read_text() == "half\nwhole\n"
    assert parts(tmp_path) == []
