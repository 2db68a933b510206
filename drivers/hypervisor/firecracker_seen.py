"""What a look at a host says of its microVMs. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.states import InstanceKind, PowerState
from drivers.hypervisor.base import ObservedInstance

_SECTION = re.compile(r"^==> (.+) <==\n", re.MULTILINE)
_ENDED_WELL = 0
_LOST = "it was killed together with its supervisor"


@dataclass(frozen=True)
class Process:
    """Of /proc/PID/stat (proc(5)): when it began and what it has used, in ticks and pages."""

    begun: str
    ticks: int
    pages: int


@dataclass(frozen=True)
class Vm:
    """One microVM. wanted: what is defined, or what it was started with while it runs. held: it may be paused."""

    name: str
    wanted: Mapping[str, Any]
    runs: bool
    pid: int = 0
    held: str = ""
    reason: str = ""
    cpu_seconds: float | None = None
    memory_used_mib: int | None = None

    @property
    def is_ours(self) -> bool:
        """Say whether we defined it."""
        return bool(self.wanted.get("instance_id"))

    @property
    def is_lost(self) -> bool:
        """Say whether nobody noted how it ended."""
        return self.reason == _LOST

    def observed(self, power: PowerState, reason: str = "") -> ObservedInstance:
        """Return it as the contract has it. reason: why its power is what it is, where the files do not say it."""
        return ObservedInstance(
            name=self.name, power=power, kind=InstanceKind.VM, instance_id=self.wanted.get("instance_id"),
            cpus=float(self.wanted.get("cpus", 0)), memory_mib=int(self.wanted.get("memory_mib", 0)),
            cpu_seconds=self.cpu_seconds, memory_used_mib=self.memory_used_mib,
            disks=tuple(disk["file"] for disk in self.wanted.get("disks", ())), reason=reason or self.reason,
        )  # fmt: skip

    @property
    def power(self) -> PowerState:
        """Return its power, as far as it can be known without asking its VMM."""
        if self.runs:
            return PowerState.RUNNING
        return PowerState.CRASHED if self.reason else PowerState.STOPPED


@dataclass
class _Parts:
    """The files of one VM, by name."""

    files: dict[str, str] = field(default_factory=dict)

    def json(self, name: str) -> Mapping[str, Any]:
        """Return the content of one; {} where it is not there, or none of ours."""
        try:
            found = json.loads(self.files.get(name, "") or "{}")
        except ValueError:  # somebody else's
            return {}
        return found if isinstance(found, dict) else {}


def parse(text: str) -> dict[str, Vm]:
    """Return the microVMs by name from what LOOK printed."""
    words = _SECTION.split(text)
    by_name: dict[str, _Parts] = {}
    rest: dict[str, str] = {}
    for title, body in zip(words[1::2], words[2::2], strict=True):
        if title.startswith("./"):
            _, name, file = title.split("/", 2)
            by_name.setdefault(name, _Parts()).files[file] = body.strip()
        else:
            rest[title] = body.strip()
    ticks_per_s, page_bytes = (int(word) for word in rest["units"].split())
    processes = dict(_process(line) for line in rest.get("processes", "").splitlines() if ") " in line)
    return {
        name: _vm(name, parts, processes, ticks_per_s, page_bytes)
        for name, parts in by_name.items() if "definition.json" in parts.files
    }  # fmt: skip


def _process(line: str) -> tuple[str, Process | None]:
    pid, _, rest = line.partition(" ")
    fields = rest.rpartition(") ")[2].split()  # from field 3 on: its name may hold anything
    gone = fields[0] == "Z"
    return pid, None if gone else Process(fields[19], int(fields[11]) + int(fields[12]), int(fields[21]))


def _vm(
    name: str, parts: _Parts, processes: Mapping[str, Process | None], ticks_per_s: int, page_bytes: int
) -> Vm:
    pids = (parts.files.get("pid", "").split() + [""] * 4)[:4]
    supervisor, vmm = (_same(processes.get(pid), begun) for pid, begun in (pids[:2], pids[2:]))
    if supervisor is None and vmm is None:
        return Vm(name, parts.json("definition.json"), runs=False, reason=_reason(parts))
    wanted = parts.json("running.json") or parts.json("definition.json")
    return Vm(
        name, wanted, runs=True, pid=int(pids[2]), held=parts.files.get("held", ""),
        cpu_seconds=vmm.ticks / ticks_per_s if vmm else 0.0,
        memory_used_mib=vmm.pages * page_bytes // 2**20 if vmm else None,
    )  # fmt: skip


def _same(found: Process | None, begun: str) -> Process | None:
    return found if found is not None and found.begun == begun else None


def _reason(parts: _Parts) -> str:
    """Return why one that is off is not just off; "" where it was shut down, or cut off by us."""
    if "cut" in parts.files or "pid" not in parts.files:
        return ""
    if "ended" not in parts.files:
        return _LOST
    code = parts.files["ended"]
    return "" if code == str(_ENDED_WELL) else f"Firecracker ended with exit code {code}"
