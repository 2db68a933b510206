"""Rows as the outbox and the worker give them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

AT = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def lifecycle(
    number: int, before: str, after: str, *, instance: str = "web", of: str = "i1", s: float = 0
) -> dict[str, Any]:
    """Return an outbox row for a change of state, s seconds after AT."""
    payload = {"from": before, "to": after, "host": "h1", "image": "tiny", "owner": "ann", "cpu": 1.0,
               "memory_mib": 512, "instance": instance}  # fmt: skip
    return {"id": number, "at": AT + timedelta(seconds=s), "kind": "lifecycle", "subject": f"instance/{of}",
            "payload": payload}  # fmt: skip


def step(number: int, name: str, duration_s: float, *, outcome: str = "done", s: float = 0) -> dict[str, Any]:
    """Return an outbox row for a step of the instance i1 that ended."""
    payload = {"operation": "op1", "verb": "deploy", "instance": "web", "host": "h1", "driver": "kvm", "image": "tiny",
               "step": name, "sequence": number, "attempt": 1, "changed": True, "duration_s": duration_s,
               "outcome": outcome}  # fmt: skip
    return {"id": number, "at": AT + timedelta(seconds=s), "kind": "step", "subject": "instance/i1", "payload": payload}


def sample(host: str, at: datetime, **values: Any) -> dict[str, Any]:
    """Return a usage row of a host of 4 cores and 4 GiB."""
    return {"at": at, "host": host, "instance_id": None, "cpus": 4.0, "cpu_used": 1.0, "memory_mib": 4096,
            "memory_used_mib": 1024, "disk_total_mib": 10_000, "disk_free_mib": 9_000, **values}  # fmt: skip
