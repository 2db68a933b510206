"""Checks of a machine's hardware from within, over SSH: pass or fail, each with its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from control import machines
from control.machines import MachineRecord
from control.operations import Operation, note_step
from core.errors import CredentialRejected, HostFault
from drivers import hardware
from drivers.hardware import Want
from drivers.hardware_output import Outcome
from drivers.identity import show
from drivers.transport.base import Endpoint, Transport
from tasks.ledger import Seen
from tasks.runtime import Runtime

KIND = "hardware"
_DISKS = 64  # as many may be tried within the deadline


def want_of(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> Want:
    """Return what is to be tried: as the operation says, else as the machine's spec does."""
    given = dict(parameters.get("hardware") or spec.get("hardware") or {})
    return Want(**{**given, "checks": tuple(given.get("checks", ()))})


def hardware_deadline_s(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> float:
    """Return the seconds that the stage may take."""
    return hardware.seconds(want_of(spec, parameters), _DISKS)


async def try_hardware(rt: Runtime, op: Operation, sequence: int, record: MachineRecord) -> Seen:
    """Try a machine's hardware; what failed is recorded as well. Raise HostFault naming it."""
    want = want_of(record.spec, op.parameters)
    transport = await ssh_of(rt, op, record)

    async def told(found: Sequence[Outcome]) -> None:
        names = [one.name for one in found]
        await rt.store.write(lambda c: note_step(c, op, sequence, {"tried": names}))

    machine = await hardware.look(transport)
    checks = [asdict(one) for one in await hardware.run(transport, machine, want, told)]
    await rt.store.write(lambda c: machines.record_checks(c, op, record.id, KIND, checks))
    failed = [one for one in checks if one["passed"] is False]
    if failed:
        raise HostFault(
            f"machine {record.name} failed: " + ", ".join(map(_words, failed)), f"machine/{record.name}",
            {"failed": [{"kind": KIND, **one} for one in failed]},
            f"mend it, then: rackflow machine checks {record.name} --run",
        )  # fmt: skip
    passed = {one["name"]: one["figure"] for one in checks if one["passed"]}
    return Seen(False, {"passed": passed, "not_tried": [one["name"] for one in checks if one["passed"] is None]})


def _words(check: Mapping[str, Any]) -> str:
    if why := check["evidence"].get("why"):
        return f"{check['name']} ({why})"
    figure = "" if check["figure"] is None else f", found {check['figure']:g} {check['unit']}"
    return f"{check['name']} ({check['require']}{figure})"


async def ssh_of(rt: Runtime, op: Operation, record: MachineRecord) -> Transport:
    """Return a connection to the operating system of a machine. Raise Unreachable, CredentialRejected."""
    return await rt.pool.transport(await _endpoint(rt, op, record))


async def _endpoint(rt: Runtime, op: Operation, record: MachineRecord) -> Endpoint:
    """Return how it is reached; the host key is compared or, where nobody named one, pinned by the first look."""
    ssh = record.spec["ssh"]
    key = ssh.get("host_key") or ""
    if not key:
        shown = await show("", ssh["address"], ssh["port"])
        if ssh["fingerprint"] and ssh["fingerprint"] != shown.fingerprint:
            raise CredentialRejected(
                f"the host key of {ssh['address']} is {shown.fingerprint}, not {ssh['fingerprint']}",
                f"machine/{record.name}", {"seen": shown.fingerprint, "wanted": ssh["fingerprint"]},
                "find out why it changed before you trust it",
            )  # fmt: skip
        key = shown.public
        await rt.store.write(lambda c: machines.pin_ssh_key(c, op, record.id, key))
    file = Path(ssh["key_file"]) if ssh["key_file"] else rt.settings.paths.ssh_key
    return Endpoint(record.name, ssh["address"], ssh["port"], ssh["user"], file, key)
