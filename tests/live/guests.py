"""What tests of disturbed hosts share: instances, operations that are under way, and who really runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.cloud import Cloud
from core.ids import on_host
from core.states import UNFINISHED
from tests.labs import Lab
from tests.live.test_lifecycle import DONE, WORD, Guest
from tests.live.test_main_job import until

__all__ = ["DONE", "WORD", "Guest", "until"]


@contextmanager
def vm_on(cloud: Cloud, name: str, host: str, datastore: str = "") -> Iterator[Guest]:
    """A VM that begins on a host and may leave it, whose guest has written a word."""
    guest = Guest(cloud, name)
    try:
        with only(cloud, host):
            make(cloud, name, "tiny", 128, {"datastore": datastore} if datastore else {})
        until(lambda: not cloud.run("instance", "exec", name, "--", "true").returncode, 180)
        guest.write(WORD)
        yield guest
    finally:
        cloud.run("instance", "delete", guest.name, "--yes")


@contextmanager
def box_on(cloud: Cloud, name: str, host: str) -> Iterator[Guest]:
    """A container that begins on a host and may leave it, and has written a word."""
    guest = Guest(cloud, name)
    try:
        with only(cloud, host):
            make(cloud, name, "busybox", 48, {})
        guest.write(WORD)
        yield guest
    finally:
        cloud.run("instance", "delete", guest.name, "--yes")


@contextmanager
def only(cloud: Cloud, host: str) -> Iterator[None]:
    """Let new ones go to this host only; an instance that requires a host could not leave it later."""
    others = [one["name"] for one in cloud.call("GET", "/v1/hosts") if one["name"] != host and one["state"] == "ready"]
    try:
        for other in others:
            cloud.call("POST", f"/v1/hosts/{other}/disable")
        yield
    finally:
        for other in others:
            cloud.call("POST", f"/v1/hosts/{other}/enable")


def make(cloud: Cloud, name: str, image: str, memory_mib: int, where: dict[str, str]) -> None:
    body = {"name": name, "image": image, "memory": memory_mib, "cpu": 0.3, "requirements": where}
    answer = cloud.call("POST", "/v1/instances", body)
    found = ended(cloud, answer["operations"][0]["id"], 180)
    assert found["state"] == DONE, found["error"]


def begin(guest: Guest, verb: str, **body: Any) -> str:
    """Ask for a verb; return its operation's id."""
    answer = guest.cloud.call("POST", f"/v1/instances/{guest.name}/{verb}", body or None)
    return str(answer["operations"][0]["id"])


def operation(cloud: Cloud, op_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.call("GET", f"/v1/operations/{op_id}")
    return found


def ended(cloud: Cloud, op_id: str, timeout_s: float = 120) -> dict[str, Any]:
    (found,) = cloud.wait([op_id], timeout_s=timeout_s)
    return dict(found)


def in_step(cloud: Cloud, op_id: str, name: str) -> bool:
    """Say whether an operation is in a step now; it has not ended."""
    found = operation(cloud, op_id)
    assert found["state"] in UNFINISHED, (found["state"], found["error"])
    return any(s["name"] == name and s["state"] == "running" for s in found["steps"])


def waits(cloud: Cloud, op_id: str) -> str:
    """Return why an operation waits for its next try, "" if it does not."""
    found = operation(cloud, op_id)
    return str(found["reason"] or "") if found["state"] == "pending" and found["attempts"] else ""


def reconcile(cloud: Cloud) -> None:
    """Compare record and world once, and let what that sets off come to its end."""
    answer = cloud.call("POST", "/v1/reconcile", {"hosts": []})
    cloud.wait([answer["operations"][0]["id"]], timeout_s=120)
    until(lambda: not unfinished(cloud), 120)


def unfinished(cloud: Cloud) -> list[dict[str, Any]]:
    """Return what is under way, but for looks at hosts."""
    rows = [row for s in UNFINISHED for row in cloud.call("GET", f"/v1/operations?state={s}&limit=100")]
    return [row for row in rows if row["verb"] != "reconcile"]


def runs_on(lab: Lab, guest: Guest) -> list[str]:
    """Return the hosts where a QEMU process of a VM is, by their process tables."""
    name = on_host(guest.show()["id"])
    look = f"pgrep -f '[g]uest={name},'"
    return [host for host in up(lab) if lab.run(host, look, check=False).strip()]


def up(lab: Lab) -> list[str]:
    return [row["name"] for row in lab.status() if row["state"] == "up" and row["kind"] == "kvm"]


def qemu(lab: Lab, guest: Guest, signal: str) -> None:
    """Send a signal to the process of a VM."""
    shown = guest.show()
    lab.run(shown["host"], f"kill -{signal} $(cat /run/libvirt/qemu/{on_host(shown['id'])}.pid)")


def drift(cloud: Cloud, guest: Guest) -> list[dict[str, Any]]:
    """Return what is open of an instance."""
    subject = f"instance/{guest.show()['id']}"
    return [row for row in cloud.call("GET", "/v1/drift") if row["subject"] == subject]
