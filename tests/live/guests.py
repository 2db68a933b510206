"""What tests of disturbed hosts share: instances, operations that are under way, and who really runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cloud import Cloud
from core.ids import on_host
from core.states import UNFINISHED
from tests.labs import Lab
from tests.live.test_lifecycle import DONE, WORD, Guest
from tests.live.test_main_job import until

__all__ = ["DONE", "WORD", "Guest", "until"]


@contextmanager
def vm_on(cloud: Cloud, name: str, host: str, datastore: str = "local") -> Iterator[Guest]:
    """A VM that begins on a host and may leave it, whose guest has written a word."""
    guest = Guest(cloud, name)
    try:
        with only(cloud, host):
            make(cloud, name, "tiny", 128, {"datastore": datastore})
        awake(guest)
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
            make(cloud, name, "busybox", 48, {"datastore": "local"})
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


def awake(guest: Guest) -> None:
    """Wait until a guest runs commands."""
    until(lambda: not guest.cloud.run("instance", "exec", guest.name, "--", "true").returncode, 180)


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


def runs_on(guest: Guest) -> list[str]:
    """Return the hosts where a VM's QEMU process is, as this machine sees them: also where a host is cut off."""
    return where_is(on_host(guest.show()["id"]))


def where_is(name: str) -> list[str]:
    """Return the lab's hosts on which there is a QEMU process of that name, one entry for each."""
    spaces = {path.stat().st_ino: path.name.removeprefix("rf") for path in Path("/run/netns").glob("rfh*")}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"qemu-system" in words[0] and any(word.startswith(f"guest={name},".encode()) for word in words):
                found.append(spaces.get((process / "ns/net").stat().st_ino, "elsewhere"))
        except OSError:
            continue  # it ended while we looked
    return sorted(found)


@contextmanager
def never_two(guest: Guest) -> Iterator[list[int]]:
    """Count a VM's processes as often as possible meanwhile; fail if there ever were two."""
    name, ended, counts = on_host(guest.show()["id"]), threading.Event(), [0]

    def count() -> None:
        while not ended.wait(0.05):
            counts.append(len(where_is(name)))

    watch = threading.Thread(target=count)
    watch.start()
    try:
        yield counts
    finally:
        ended.set()
        watch.join()
    assert len(counts) > 20
    assert max(counts) == 1


@contextmanager
def restarted(cloud: Cloud, **settings: str) -> Iterator[None]:
    """Let the front-end run with other settings for a while."""
    before = dict(cloud.env)
    try:
        _restart(cloud, {**before, **{f"RACKFLOW_{name.upper()}": value for name, value in settings.items()}})
        yield
    finally:
        _restart(cloud, before)


def _restart(cloud: Cloud, env: dict[str, str]) -> None:
    cloud.rackflow("down")
    cloud.env = env
    bring_up(cloud)


def bring_up(cloud: Cloud) -> None:
    """Start the front-end; it may listen elsewhere than before."""
    cloud.rackflow("up", "--detach")
    cloud.url = json.loads(Path(cloud.env["RACKFLOW_RUN_DIR"], "endpoint.json").read_text())["api"]


def host_is(cloud: Cloud, host: str, state: str, timeout_s: float = 120) -> dict[str, Any]:
    """Wait until a host is in a state; return it."""
    def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = cloud.call("GET", f"/v1/hosts/{host}")
        return shown if shown["state"] == state else None

    return dict(until(look, timeout_s))


def qemu(lab: Lab, guest: Guest, signal: str) -> None:
    """Send a signal to the process of a VM."""
    shown = guest.show()
    lab.run(shown["host"], f"kill -{signal} $(cat /run/libvirt/qemu/{on_host(shown['id'])}.pid)")


def drift(cloud: Cloud, guest: Guest) -> list[dict[str, Any]]:
    """Return what is open of an instance."""
    subject = f"instance/{guest.show()['id']}"
    return [row for row in cloud.call("GET", "/v1/drift") if row["subject"] == subject]


def qemu_pid(lab: Lab, host: str, name: str) -> str:
    """Return the process of a domain on a host."""
    return lab.run(host, f"cat /run/libvirt/qemu/{name}.pid").strip()
