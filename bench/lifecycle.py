"""What the lifecycle costs beside bare libvirt, and how soon it goes on after a crash: `scripts/bench lifecycle`.

The last line is one JSON object. Live migration and snapshot are taken in turns with libvirt's own calls on a VM of the
same size on the same two hosts; a second is taken off rackflow's side for ledger, placement and Prefect.
`--lab DIR` uses a lab that runs, `--only FIGURE` takes some of the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.bare_vm import BareVm
from bench.cloud import Cloud, cloud, say
from bench.overhead import at, delete, deploy, hosts_of
from bench.sweep import reconcile_cpu_s
from core.settings import DriverSettings
from drivers.hosts import Host

ROUNDS, CRASHES = 5, 3
NAME, MEMORY_MIB = "moved", 128
FIGURES = ("live_migration_ratio", "snapshot_ratio", "reconcile_cpu_s", "recovery_s")
LIVE = ("live_migration_ratio", "snapshot_ratio", "recovery_s")


def ask(c: Cloud, verb: str, body: dict[str, Any]) -> float:
    """Ask for a verb on our VM and wait; return seconds from the request to the end. Raise SystemExit if it failed."""
    begun = time.monotonic()
    ids = [op["id"] for op in c.call("POST", f"/v1/instances/{NAME}/{verb}", body)["operations"]]
    rows = c.wait(ids)
    took = time.monotonic() - begun
    _require_done(rows)
    return took


def _require_done(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["state"] != "done":
            raise SystemExit(f"{row['verb']} failed: {json.dumps(row, indent=1)}")


def elsewhere(c: Cloud, hosts: list[Host]) -> str:
    """Return the one of two hosts that our VM is not on."""
    on = c.call("GET", f"/v1/instances/{NAME}")["host"]
    return next(host.name for host in hosts if host.name != on)


def migrate(c: Cloud, hosts: list[Host]) -> float:
    return ask(c, "migrate", {"host": elsewhere(c, hosts), "live": True})


def snapshot(c: Cloud) -> float:
    took = ask(c, "snapshot", {"snapshot": "own", "memory": True})
    ask(c, "drop-snapshot", {"snapshot": "own"})
    return took


def ratio(what: str, own: Callable[[], float], bare: Callable[[], float]) -> float:
    """Measure both in turns, after one of each that does not count; return (median of ours - 1 s) / median of bare."""
    own()
    bare()
    pairs = [(own(), bare()) for _ in range(ROUNDS)]
    ours, straight = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    say(f"{what}: rackflow {ours:.2f} s, libvirt alone {straight:.2f} s (medians of {ROUNDS})")
    return (ours - 1) / straight


def recovery_s(c: Cloud, hosts: list[Host]) -> float:
    """Kill the worker in the middle of live migrations; return the longest time from the kill to a step under way."""
    return max(_recover(c, elsewhere(c, hosts)) for _ in range(CRASHES))


def _recover(c: Cloud, target: str) -> float:
    (op,) = c.call("POST", f"/v1/instances/{NAME}/migrate", {"host": target, "live": True})["operations"]
    _until("transfer", lambda: any(s["name"] == "transfer" and s["state"] == "running" for s in _steps(c, op["id"])))
    os.kill(int(Path(c.env["RACKFLOW_RUN_DIR"], "worker.pid").read_text()), signal.SIGKILL)
    killed = datetime.now(UTC)
    begun: list[datetime] = []

    def went_on() -> bool:
        begun[:] = [t for s in _steps(c, op["id"]) if s["started_at"] and (t := at(s["started_at"])) > killed]
        return bool(begun)

    _until("a step after the kill", went_on)
    took = (min(begun) - killed).total_seconds()
    say(f"killed in the middle of a live migration: it goes on after {took:.2f} s")
    _require_done(c.wait([op["id"]]))
    return took


def _steps(c: Cloud, op_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = c.call("GET", f"/v1/operations/{op_id}")["steps"]
    return found


def _until(what: str, there: Callable[[], bool], within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while not there():
        if time.monotonic() > until:
            raise SystemExit(f"{what} was not seen within {within_s} s")
        time.sleep(0.02)


@contextmanager
def vms(c: Cloud, lab: Path) -> Iterator[tuple[list[Host], BareVm, Callable[[Awaitable[Any]], Any]]]:
    """Have one VM of rackflow's and one without it on two KVM hosts; both have booted."""
    loop = asyncio.new_event_loop()
    run: Callable[[Awaitable[Any]], Any] = loop.run_until_complete
    known = run(hosts_of(lab, DriverSettings(domain_type="qemu")))
    hosts = [host for host in known.values() if host.kind == "kvm"][:2]
    vm = BareVm(hosts[0], hosts[1], MEMORY_MIB)
    try:
        c.rackflow("image", "stage", "tiny", *(host.name for host in hosts))
        sha256 = next(i["sha256"] for i in c.call("GET", "/v1/images") if i["name"] == "tiny")
        deploy(c, {"name": NAME, "image": "tiny", "cpu": 1, "memory": MEMORY_MIB})  # one that requires a host stays
        run(vm.make(sha256, "198.18.17.240/24"))
        _until("the guest", lambda: c.run("instance", "exec", NAME, "--", "true").returncode == 0, 120)
        yield hosts, vm, run
    finally:
        run(vm.remove())
        if c.run("instance", "show", NAME).returncode == 0:
            delete(c, [NAME])
        for host in known.values():
            run(host.close())
        loop.close()


def live(lab: Path | None, wanted: set[str]) -> dict[str, float]:
    """Return the figures that need hosts."""
    figures: dict[str, float] = {}
    with cloud("kvm:2", lab_dir=lab) as c, vms(c, Path(c.env["LAB_DIR"])) as (hosts, vm, run):
        if "live_migration_ratio" in wanted:
            figures["live_migration_ratio"] = ratio(
                "live migration", lambda: migrate(c, hosts), lambda: float(run(vm.migrate()))
            )
        if "snapshot_ratio" in wanted:
            figures["snapshot_ratio"] = ratio("snapshot", lambda: snapshot(c), lambda: float(run(vm.snapshot())))
        if "recovery_s" in wanted:
            figures["recovery_s"] = recovery_s(c, hosts)
    return figures


def main() -> None:
    """Run what is wanted and print the figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench lifecycle", description=__doc__)
    parser.add_argument("--lab", type=Path, metavar="DIR", help="use the lab that runs there, and leave it")
    parser.add_argument("--only", choices=FIGURES, action="append", help="repeatable; by default all")
    given = parser.parse_args()
    wanted = set(given.only or FIGURES)
    figures: dict[str, float] = {}
    if "reconcile_cpu_s" in wanted:
        figures["reconcile_cpu_s"] = reconcile_cpu_s()
    if wanted & set(LIVE):
        figures |= live(given.lab, wanted)
    print(json.dumps({name: round(figures[name], 3) for name in FIGURES if name in figures}))


if __name__ == "__main__":
    main()
