"""What must be so on real hosts when all is quiet again: record and world agree, and nothing is left over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.cloud import Cloud
from control.lifecycle import PASSING
from core.ids import on_host
from core.states import InstanceState, OperationState
from tests.labs import Lab
from tests.live.guests import unfinished

S = InstanceState
STORE = "/var/lib/rackflow/datastore"
POWER = {S.RUNNING: "running", S.SUSPENDED: "paused", S.OFF: "shut off"}
TOLD = ("memory-lost",)  # after a power loss a person is to know of it
FILES = ("qcow2", "base", "iso", "taken", "restored")  # disks, and notes of where their content came from
BOX_POWER = {S.RUNNING: "RUNNING", S.SUSPENDED: "FROZEN", S.OFF: "STOPPED"}


def wrong(cloud: Cloud, lab: Lab, before: set[str]) -> dict[str, list[str]]:
    """Return what is wrong, by kind; `before`: what of `left` there was when the pair began."""
    rows = [cloud.call("GET", f"/v1/instances/{row['id']}") for row in cloud.call("GET", "/v1/instances?limit=100")]
    held = [op for op in _held(cloud) if op["id"] not in before]
    found = {
        "unfinished": [f"{op['verb']} is {op['state']}: {op['reason']}" for op in unfinished(cloud)],
        "held": [f"{op['verb']}: {op['error']}" for op in held],
        "passing": [f"{row['name']} is {row['state']}" for row in rows if row["state"] in PASSING],
        "leaked": [*_on_hosts(rows, lab), *_at_the_front_end(cloud, rows, before)],
        "drift": [
            f"{one['kind']} on {one['host']}: {one['seen']}" for one in cloud.call("GET", "/v1/drift")
            if one["kind"] not in TOLD
        ],
    }
    return {kind: what for kind, what in found.items() if what}


def left(cloud: Cloud) -> set[str]:
    """Return what tests before this one left on a shared front-end: held operations, files of broken imports."""
    parts = {path.name for path in Path(cloud.env["RACKFLOW_DATA_DIR"], "images").glob(".*")}
    return parts | {op["id"] for op in _held(cloud)}


def _held(cloud: Cloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cloud.call("GET", f"/v1/operations?state={OperationState.HELD}&limit=100")
    return found


def _on_hosts(rows: list[dict[str, Any]], lab: Lab) -> Iterator[str]:
    for host in lab.status():
        here = [row for row in rows if row["host"] == host["name"]]
        look = _kvm if host["kind"] == "kvm" else _lxd
        yield from (f"{host['name']}: {what}" for what in look(host["name"], here, lab))


def _kvm(host: str, here: list[dict[str, Any]], lab: Lab) -> Iterator[str]:
    there = dict(
        line.rsplit(";", 1) for line in lab.run(
            host, "for d in $(virsh list --all --name); do echo \"$d;$(virsh domstate $d)\"; done"
        ).split("\n") if line
    )  # fmt: skip
    wanted = {on_host(row["id"]): POWER.get(S(row["state"]), "?") for row in here}
    if there != wanted:
        yield f"domains {there}, the record has {wanted}"
    folders = set(lab.run(host, f"ls {STORE}/instances").split())
    if folders != {row["id"] for row in here}:
        yield f"folders {sorted(folders)}, the record has {sorted(row['id'] for row in here)}"
    known = " ".join(f"! -name '*.{end}'" for end in FILES)
    if strange := lab.run(host, f"find {STORE}/instances -mindepth 2 {known}"):
        yield f"files {strange.split()}"
    taps = len(lab.run(host, "ip -o link show type tun").splitlines())
    nics = _nics(here)
    if taps != nics:
        yield f"{taps} taps for {nics} NICs"


def _lxd(host: str, here: list[dict[str, Any]], lab: Lab) -> Iterator[str]:
    lines = lab.run(host, "lxc list -f csv -c ns").split()
    there = dict(line.split(",") for line in lines)
    wanted = {on_host(row["id"]): BOX_POWER.get(S(row["state"]), "?") for row in here}
    if there != wanted:
        yield f"containers {there}, the record has {wanted}"
    volumes = lab.run(host, "for p in $(lxc storage list -f csv | cut -d, -f1); do "
                      "lxc storage volume list $p type=custom -f csv; done").strip()  # fmt: skip
    if len(volumes.splitlines()) != sum(len(row["spec"]["disks"]) for row in here):
        yield f"volumes {volumes.splitlines()}"
    veths = lab.run(host, "ip -o link show type veth").count(": veth")
    nics = _nics(here)
    if veths != nics:
        yield f"{veths} veths for {nics} NICs"


def _nics(here: list[dict[str, Any]]) -> int:
    return sum(len(row["spec"]["nics"]) for row in here if row["state"] in (S.RUNNING, S.SUSPENDED))


def _at_the_front_end(cloud: Cloud, rows: list[dict[str, Any]], before: set[str]) -> Iterator[str]:
    data = Path(cloud.env["RACKFLOW_DATA_DIR"])
    parked = {row["id"] for row in rows if row["state"] in (S.STOPPED, S.UNDEPLOYED)}
    if parked != _names(data / "parked"):
        yield f"parked: {sorted(_names(data / 'parked'))}, the record has {sorted(parked)}"
    backups = {one["id"] for one in cloud.call("GET", "/v1/backups")}
    if backups != _names(data / "backups"):
        yield f"backups: {sorted(_names(data / 'backups'))}, the record has {sorted(backups)}"
    images = {one["sha256"] for one in cloud.call("GET", "/v1/images") if one["state"] == "ready"}
    if images != {name.split(".")[0] for name in _names(data / "images") - before}:
        yield f"images: {sorted(_names(data / 'images'))}, the record has {sorted(images)}"


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


