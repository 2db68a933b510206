"""How each verb is asked for on a real instance: the state it begins in, what it needs before, its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from control.lifecycle import VERBS
from core.states import InstanceKind, InstanceState, Verb
from tests.live.guests import WORD, Guest, awake, make

S = InstanceState
SPOILED = "spoiled"
IMAGES = {InstanceKind.VM: ("tiny", 128), InstanceKind.CONTAINER: ("busybox", 48)}
ELSEWHERE = frozenset({Verb.FAILOVER})  # it needs a dead host: tests/live/test_failover.py
VM_ONLY = frozenset({Verb.STOP, Verb.RESTORE, Verb.MIGRATE_LIVE})


@dataclass(frozen=True)
class Asked:
    """word: as it is asked for by the API; state: the state it begins in; before: what it needs first."""

    word: str
    state: S = S.RUNNING
    body: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Guest], object] | None = None


NIC = {"network": "lan"}  # LXD takes no second NIC in a network that it manages itself


def _disk(guest: Guest) -> None:
    guest.do("attach-disk", disk={"name": "data", "size": "32MiB"})


def _nic(guest: Guest) -> None:
    guest.do("attach-nic", nic=NIC)


def _snapshot(guest: Guest) -> None:
    guest.do("snapshot", snapshot="good")
    guest.write(SPOILED)


def _backup(guest: Guest) -> None:
    guest.do("backup", backup="good")
    guest.write(SPOILED)


GRACE = {"grace_s": 1}
ASKED: dict[Verb, Asked] = {
    Verb.START: Asked("start", S.OFF), Verb.SHUTDOWN: Asked("shutdown", body=GRACE),
    Verb.POWEROFF: Asked("poweroff"), Verb.REBOOT: Asked("reboot", body={"hard": True}),
    Verb.SUSPEND: Asked("suspend"), Verb.RESUME: Asked("resume", S.SUSPENDED), Verb.STOP: Asked("stop"),
    Verb.RESTORE: Asked("start", S.STOPPED), Verb.UNDEPLOY: Asked("undeploy", body=GRACE),
    Verb.REDEPLOY: Asked("start", S.UNDEPLOYED), Verb.MIGRATE: Asked("migrate", body={"live": False, **GRACE}),
    Verb.MIGRATE_LIVE: Asked("migrate", body={"live": True}),
    Verb.RENAME: Asked("rename", body={"name": "chaos-renamed"}),
    Verb.RESIZE: Asked("resize", S.OFF, {"cpu": 0.5, "memory": "144MiB"}),
    Verb.ATTACH_DISK: Asked("attach-disk", body={"disk": {"name": "data", "size": "32MiB"}}),
    Verb.DETACH_DISK: Asked("detach-disk", body={"disk": "data"}, before=_disk),
    Verb.GROW_DISK: Asked("grow-disk", body={"disk": "data", "size": "64MiB"}, before=_disk),
    Verb.ATTACH_NIC: Asked("attach-nic", body={"nic": NIC}),
    Verb.DETACH_NIC: Asked("detach-nic", body={"nic": 1}, before=_nic),
    Verb.SNAPSHOT: Asked("snapshot", body={"snapshot": "good"}),
    Verb.REVERT: Asked("revert", body={"snapshot": "good"}, before=_snapshot),
    Verb.DROP_SNAPSHOT: Asked("drop-snapshot", body={"snapshot": "good"}, before=_snapshot),
    Verb.SAVE_IMAGE: Asked("save-image", body={"image": "chaos-golden"}),
    Verb.BACKUP: Asked("backup", body={"backup": "good"}),
    Verb.REVERT_BACKUP: Asked("revert-backup", body={"backup": "good", **GRACE}, before=_backup),
}  # fmt: skip
INTO: dict[S, tuple[str, dict[str, Any]]] = {
    S.OFF: ("shutdown", GRACE), S.SUSPENDED: ("suspend", {}), S.STOPPED: ("stop", {}),
    S.UNDEPLOYED: ("undeploy", GRACE),
}  # fmt: skip


def kinds(verb: Verb) -> Iterator[InstanceKind]:
    """Yield the kinds of instances that can be asked for a verb here."""
    yield InstanceKind.VM
    if verb not in VM_ONLY:
        yield InstanceKind.CONTAINER


def verbs() -> list[Verb]:
    """Return the verbs of the table that are tried here."""
    return [verb for verb in VERBS if verb not in ELSEWHERE]


def deploy(guest: Guest, kind: InstanceKind) -> str:
    """Ask for an instance; return the operation's id."""
    image, memory_mib = IMAGES[kind]
    body = {"name": guest.name, "image": image, "memory": memory_mib, "cpu": 0.3}
    return str(guest.cloud.call("POST", "/v1/instances", body)["operations"][0]["id"])


def prepare(guest: Guest, kind: InstanceKind, verb: Verb) -> None:
    """Make an instance whose guest has written the word, and bring it to where the verb begins."""
    image, memory_mib = IMAGES[kind]
    make(guest.cloud, guest.name, image, memory_mib, {"datastore": "local"})
    awake(guest)
    guest.write(WORD)
    asked = ASKED.get(verb)
    if asked is None:
        return
    if asked.before is not None:
        asked.before(guest)
    if asked.state is not S.RUNNING:
        word, body = INTO[asked.state]
        guest.do(word, **body)


def ask(guest: Guest, kind: InstanceKind, verb: Verb) -> str:
    """Ask for the verb; return the operation's id."""
    if verb is Verb.DEPLOY:
        return deploy(guest, kind)
    if verb is Verb.DELETE:
        return str(guest.cloud.call("DELETE", f"/v1/instances/{guest.name}")["operations"][0]["id"])
    asked = ASKED[verb]
    answer = guest.cloud.call("POST", f"/v1/instances/{guest.name}/{asked.word}", asked.body or None)
    return str(answer["operations"][0]["id"])
