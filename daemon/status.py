"""`status`: the processes, what they hold of memory and CPU, and where the front-end is reached."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from core.settings import Paths
from daemon import lock, state
from daemon.up import print_addresses

_TICKS = os.sysconf("SC_CLK_TCK")
_NOT_UP = 8  # exit code: the front-end cannot be reached


def memory_mib(pid: int, proc: Path = Path("/proc")) -> float | None:
    """Return the proportional set size of a process and its children in MiB, None when it cannot be read."""
    total_kib = 0
    for member in (pid, *_children(pid, proc)):
        with contextlib.suppress(OSError, StopIteration):
            lines = (proc / str(member) / "smaps_rollup").read_text().splitlines()
            total_kib += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return round(total_kib / 1024, 1) if total_kib else None


def cpu_s(pid: int, proc: Path = Path("/proc")) -> float:
    """Return the CPU seconds that a process and its children (ended ones as well) have used."""
    total = 0
    for member in (pid, *_children(pid, proc)):
        with contextlib.suppress(OSError):
            fields = (proc / str(member) / "stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return round(total / _TICKS, 2)


def _children(pid: int, proc: Path) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in (proc / str(pid) / "task").iterdir():
            for kid in (task / "children").read_text().split():
                found += [int(kid), *_children(int(kid), proc)]
    return found


def collect(paths: Paths) -> dict[str, Any]:
    """Return what `status -o json` prints. state: up, starting (not all ready) or down."""
    supervisor = lock.holder(paths)
    if supervisor is None:
        return {"state": "down", "supervisor": None, "processes": [], "addresses": {}}
    known = state.read(paths)
    rows = [
        {**row, "memory_mib": memory_mib(row["pid"]), "cpu_s": cpu_s(row["pid"])}
        if row["pid"] else {**row, "memory_mib": None, "cpu_s": None}
        for row in known["processes"]
    ]  # fmt: skip
    good = bool(rows) and all(row["state"] in state.GOOD for row in rows)
    return {
        "state": "up" if good else "starting", "supervisor": supervisor, "processes": rows,
        "addresses": known["addresses"],
    }  # fmt: skip


def show(paths: Paths, output: str) -> int:
    """Print the state of the front-end; return 0 when it is up, 8 when it is down, 1 between."""
    found = collect(paths)
    if output == "json":
        print(json.dumps(found))
    else:
        _table(paths, found)
    return {"up": 0, "starting": 1, "down": _NOT_UP}[found["state"]]


def _table(paths: Paths, found: dict[str, Any]) -> None:
    print(f"rackflow is {found['state']}")
    if found["state"] == "down":
        return
    print(f"  {'process':<10} {'state':<9} {'pid':>7} {'memory':>9} {'cpu':>8} {'restarts':>8}  since")
    for row in found["processes"]:
        memory = f"{row['memory_mib']:.0f} MiB" if row["memory_mib"] else "-"
        cpu = f"{row['cpu_s']:.1f} s" if row["cpu_s"] is not None else "-"
        note = f"  {row['note']}" if row["note"] else ""
        print(f"  {row['name']:<10} {row['state']:<9} {row['pid'] or '-':>7} {memory:>9} {cpu:>8} "
              f"{row['restarts']:>8}  {row['since']}{note}")  # fmt: skip
    print_addresses(paths)
