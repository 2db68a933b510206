"""Hundreds of machines enrolled together, and some that fail: `scripts/bench enroll [--machines N] [--bad N]`.

A whole rackflow (API, ledger, history, Prefect) and simulated BMCs, each call of which takes LATENCY_S. Among them are
machines whose BMC does not answer. `--redfish N` enrolls N machines more behind one emulated BMC that speaks Redfish
over HTTP (sushy-tools, a single process), which bears few at a time. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench.cloud import Cloud, cloud, say
from lab.baremetal.services import USER, Machine, Services

MACHINES, BAD, REDFISH = 500, 25, 100
LATENCY_S = 0.02
LONGEST_S = 900
BASE = Path("/var/tmp/rackflow-enroll")
NOBODY = "https://127.0.0.1:1"  # where no BMC answers
RULES = {
    "classify": [
        {"name": "virt", "when": "virtualises and cpus >= 8", "role": "kvm", "cluster": "default", "traits": ["vt"]},
        {"name": "rest", "when": "cpus < 8", "role": "spare"},
    ],
    "checks": [
        {"name": "memory", "require": "memory_mib >= 32768", "figure": "memory_mib"},
        {"name": "disks", "require": "smallest_disk_gib >= 100", "figure": "smallest_disk_gib"},
    ],
}  # fmt: skip


def main() -> None:
    """Print the figures, as the last line all of them as JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench enroll", description=__doc__)
    parser.add_argument("--machines", type=int, default=MACHINES)
    parser.add_argument("--bad", type=int, default=BAD, help="more, whose BMC does not answer")
    parser.add_argument("--redfish", type=int, default=REDFISH, help="more, behind one real BMC; 0: none")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        (Path(folder) / "lab.yaml").write_text("{}\n")
        with cloud(base=BASE, lab_dir=Path(folder), drivers__simulated_latency_s=str(LATENCY_S)) as c:
            figures = simulated(c, asked.machines, asked.bad)
            if asked.redfish:
                c.call("PUT", "/v1/machines/rules", {})  # an emulated machine has next to nothing
                figures |= redfish(c, asked.redfish, Path(folder))
    print(json.dumps(figures))


def simulated(c: Cloud, count: int, bad: int) -> dict[str, float]:
    """Enroll machines with simulated BMCs, and some with none."""
    c.call("PUT", "/v1/machines/rules", RULES)
    good = [{"name": f"m{n}", "bmc": f"fake://m{n}", "labels": {"rack": f"r{n // 40}"}} for n in range(count)]
    dead = [{"name": f"dead{n}", "bmc": NOBODY, "system": str(n), "user": "x"} for n in range(bad)]
    took, used = enroll(c, good + dead)
    _require(c, good, "ready")
    _require(c, dead, "faulty")
    say(f"{count} and {bad} that fail: {took:.1f} s; CPU seconds: {_words(used)}")
    total = count + bad
    return {
        "machines": total, "enroll_s": round(took, 1), "machines_per_s": round(total / took, 1),
        "cpu_ms_per_machine": round(1000 * used.total() / total, 1), "failed_alone": bad,
    }  # fmt: skip


def redfish(c: Cloud, count: int, folder: Path) -> dict[str, float]:
    """Enroll machines that one emulated BMC manages, as its systems."""
    machines = [
        Machine(f"v{n}", f"22222222-2222-4333-8444-{n:012}", f"52:54:00:cc:{n // 256:02x}:{n % 256:02x}", on=True)
        for n in range(count)
    ]
    services = Services(folder / "services", machines)
    services.start("bmc")
    try:
        bodies = [
            {"name": one.name, "bmc": services.url("bmc"), "system": one.uuid, "user": USER,
             "password": services.password} for one in machines
        ]  # fmt: skip
        took, used = enroll(c, bodies)
        _require(c, bodies, "ready")
    finally:
        services.stop()
    say(f"{count} behind one BMC: {took:.1f} s; CPU seconds: {_words(used)}")
    return {
        "redfish_machines": count, "redfish_s": round(took, 1), "redfish_per_s": round(count / took, 1),
        "redfish_cpu_ms_per_machine": round(1000 * used.total() / count, 1),
    }  # fmt: skip


def enroll(c: Cloud, bodies: Sequence[dict[str, Any]]) -> tuple[float, Counter[str]]:
    """Ask for all in one request; return the seconds until none is under way, and CPU seconds by process."""
    before, began = cpu(c), time.monotonic()
    c.call("POST", "/v1/machines", list(bodies))
    while c.call("GET", "/v1/machines?state=enrolling"):
        if time.monotonic() - began > LONGEST_S:
            raise RuntimeError(f"machines are being enrolled after {LONGEST_S} s")
        time.sleep(0.25)
    took = time.monotonic() - began
    return took, cpu(c) - before


def _require(c: Cloud, bodies: Sequence[dict[str, Any]], state: str) -> None:
    names = {body["name"] for body in bodies}
    rows = [row for row in c.call("GET", "/v1/machines") if row["name"] in names]
    wrong = [row for row in rows if row["state"] != state or (state == "faulty" and not row["error"])]
    if wrong or len(rows) != len(names):
        raise RuntimeError(f"{len(wrong)} of {len(names)} are not {state}, for example: {json.dumps(wrong[:1])}")


def cpu(c: Cloud) -> Counter[str]:
    """Return CPU seconds by process of the front-end."""
    found: Counter[str] = Counter()
    for process in c.processes():
        with suppress(psutil.Error):  # one of PostgreSQL's that has ended meanwhile
            words = process.cmdline()
            part = words[-1] if words[1:3] == ["-m", "daemon"] else process.name()
            found.update({part: sum(process.cpu_times()[:2])})
    return found


def _words(used: Counter[str]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in used.most_common(5))


if __name__ == "__main__":
    main()
