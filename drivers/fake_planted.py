"""Instances that simulated hosts have from the start: a simulation that is begun in the middle of a cloud's life.

The file is JSON: {"images": {sha256: bytes}, "hosts": {name: [[id, kind, cpu, memory_mib], …]}}.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from core.ids import on_host
from core.states import InstanceKind, PowerState
from drivers.fake_things import FakeHost, FakeInstance
from drivers.hypervisor.base import ImageOnHost, InstanceSpec


def plant(host: FakeHost, file: str) -> None:
    """Give a host the images of a file, and the instances that stand there under its name: they run."""
    planted = _read(file)
    for sha256, size_bytes in planted["images"].items():
        host.images[sha256] = ImageOnHost(sha256, size_bytes, {})
    for row_id, kind, cpu, memory_mib in planted["hosts"].get(host.name, ()):
        spec = InstanceSpec(row_id, on_host(row_id), row_id, InstanceKind(kind), cpu, memory_mib, (), ())
        host.instances[spec.name] = FakeInstance(spec.name, spec.kind, spec, PowerState.RUNNING, active=spec)


@cache
def _read(file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(file).read_text())
    return found
