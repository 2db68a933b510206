"""What a machine's last stages ask for: its host, a test instance there, and what becomes of both when that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from control import access, children, hosts, instances, machines, operations, requests, tables
from control.ledger import Operation
from control.machines import MachineRecord
from core.errors import Conflict, CredentialRejected, HostFault, NeedsOperator, NotFound, RackflowError
from core.states import UNFINISHED, HostState, ImageState, InstanceKind, OperationState, Verb

SOURCE = "enroll-machine"
_TEST_CPU = 0.1
_TEST_MEMORY_MIB = 128


@dataclass(frozen=True)
class Outcome:
    """What a machine becomes. role: kvm or lxd."""

    role: str
    cluster: str
    kind: InstanceKind


def outcome(c: sa.Connection, machine_id: str) -> Outcome:
    """Return what the spec says, else the rules. Raise NeedsOperator (neither does)."""
    machine = machines.get(c, machine_id)
    host = machine.spec["host"] or {}
    role = host.get("role") or machine.classified.get("role") or ""
    if role not in ("kvm", "lxd"):
        raise NeedsOperator(
            f"nothing says what machine {machine.name} becomes: its role is {role or 'not known'}",
            f"machine/{machine.name}", {"classified": machine.classified},
            "give host: role, or a rule that gives role kvm or lxd to such machines",
        )  # fmt: skip
    cluster = host.get("cluster") or machine.classified.get("cluster") or "default"
    return Outcome(role, cluster, hosts.KINDS[role][0])


def require_fingerprint(name: str, address: str, seen: str, wanted: str) -> None:
    """Raise CredentialRejected where a machine's host key is another one than was asked for."""
    if seen != wanted:
        raise CredentialRejected(
            f"the host key of {address} is {seen}, not {wanted}", f"machine/{name}", {"seen": seen, "wanted": wanted},
            "find out why it changed before you trust it",
        )  # fmt: skip


def host_body(machine: MachineRecord, becomes: Outcome, address: str, key: str) -> dict[str, Any]:
    """Return the request that enrolls it as a host, which is fenced by the same BMC."""
    spec, host = machine.spec, machine.spec["host"]
    installed = spec["install"] is not None
    told = {"failure-domain": "failure_domain", "rack": "rack"}
    labels = {label: str(value) for label, field in told.items() if (value := machine.classified.get(field))}
    bmc = {
        "address": spec["bmc"], "user": spec["user"], "password_file": spec["password_file"],
        "system": spec["system"], "verify_tls": spec["verify_tls"],
    }  # fmt: skip
    return {"hosts": [{
        "name": machine.name, "address": address, "port": 22 if installed else host["port"],
        "user": "root" if installed else host["user"], "key_file": host["key_file"], "fingerprint": key,
        "driver": becomes.role, "cluster": becomes.cluster, "bridges": host["bridges"],
        "labels": {**labels, **machine.labels}, **({"bmc": bmc} if spec["password_file"] else {}),
    }]}  # fmt: skip


def test_name(op: Operation) -> str:
    """Return the name of the instance by which a host is tried; each try of a machine has another."""
    return f"verify-{op.subject_name}-{op.id[-6:].lower()}"


def test_body(c: sa.Connection, machine: MachineRecord, kind: InstanceKind, name: str) -> dict[str, Any]:
    """Return the request for it. Raise NeedsOperator (there is no image for it)."""
    t = tables.image
    wanted = machine.spec["host"]["test_image"]
    statement = sa.select(t.c.name, t.c.min_memory_mib).where(t.c.kind == kind, t.c.state == ImageState.READY)
    if wanted:
        statement = statement.where(t.c.live_name == wanted)
    found = c.execute(statement.where(t.c.live_name.is_not(None)).order_by(t.c.size_bytes).limit(1)).first()
    if found is None:
        raise NeedsOperator(
            f"machine {machine.name} cannot be verified: there is no image {wanted or f'of a {kind}'}",
            f"machine/{machine.name}", {"kind": kind, "image": wanted},
            "import one (rackflow image import), then enroll the machine again",
        )  # fmt: skip
    return {"instances": [{
        "name": name, "image": found.name, "kind": kind.value, "cpu": _TEST_CPU,
        "memory": found.min_memory_mib or _TEST_MEMORY_MIB, "requirements": {"host": machine.name},
    }]}  # fmt: skip


def ask(
    c: sa.Connection, op: Operation, verb: Verb, key: str, body: Callable[[sa.Connection], Mapping[str, Any]]
) -> Operation:
    """Enter a part of a machine's enrollment; after a crash the same one, after a failure another.

    Raise Stale, and what `submit` raises.
    """
    begun = list(children.begun(c, op.asked_by, f"{op.id}:{key}:").values())
    if begun and (begun[-1].state is OperationState.DONE or begun[-1].state in UNFINISHED):
        return begun[-1]
    return requests.submit_for(c, op, verb, body(c), source=SOURCE, key=f"{op.id}:{key}:{len(begun)}")


def cancel(c: sa.Connection, op: Operation, child: str) -> None:
    """Cancel a part, where it has not ended."""
    with suppress(Conflict):
        operations.cancel(c, access.find(c, op.asked_by), child)


def put_out_of_use(c: sa.Connection, op: Operation, host: str, test: str, error: RackflowError) -> None:
    """Let nothing more be placed on a host, say why, and ask for the test instance to be deleted, if there is one."""
    with suppress(NotFound):
        hosts.set_state(c, hosts.get(c, host).id, HostState.DISABLED, error)
    with suppress(NotFound, Conflict, HostFault):
        who = access.find(c, op.asked_by)
        instances.show(c, who, test)
        requests.submit(
            c, who, Verb.DELETE, {"instances": [test]}, source=SOURCE, idempotency_key=f"{op.id}:clean-up"
        )
