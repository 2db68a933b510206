"""A whole rackflow on simulated hosts, from requests over the API to instances that run: `scripts/bench scale`.

Nothing is left out but the hosts: API, placement, ledger, history, Prefect with its PostgreSQL. A simulated host
answers each call of a driver after LATENCY_S. The last line is one JSON object; what is told of a cloud with `--hosts`
hosts that holds `--instances` instances already bears `_at_HOSTS`.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from bench.cloud import Cloud, cloud, say
from bench.filled import fill
from core.states import UNFINISHED
from tests.integration.line import image_files

HOSTS, BURST, CLIENTS = 100, 1000, 8
LONGEST_S = 1800
LATENCY_S = 0.005
BASE = Path("/var/tmp/rackflow-scale")
NETWORK = {
    "name": "wide", "bridge": "br0", "subnet": "10.64.0.0/14", "default_for": ["vm", "container"],
    "ranges": [{"first": "10.64.0.10", "last": "10.67.200.250"}],
}  # fmt: skip
SHAPES = [
    {"image": image, "cpu": cpu, "memory": memory}
    for image in ("vm", "box") for cpu, memory in ((0.25, 128), (0.5, 256), (0.5, 512), (1, 1024), (1, 2048), (2, 4096))
]  # fmt: skip
SMALL = {"cpu": 0.25, "memory": 256}  # of those that are there already


def main() -> None:
    """Print the figures of each round, and as the last line all of them as JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench scale", description=__doc__)
    parser.add_argument("--hosts", type=int, default=2500, help="of the second round; 0: there is none")
    parser.add_argument("--instances", type=int, default=20_000, help="that the second round finds there")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder, _rackflow(Path(folder)) as c:
        _enroll(c, HOSTS)
        figures = _round(c, HOSTS, 0)
        if asked.hosts:
            _fill(c, asked.hosts, asked.instances)
            later = _round(c, asked.hosts, asked.instances)
            figures |= {f"{key}_at_{asked.hosts}": value for key, value in later.items()}
    print(json.dumps(figures))


@contextmanager
def _rackflow(folder: Path) -> Iterator[Cloud]:
    """Bring up a rackflow without hosts: a network and two images are there."""
    files = image_files(folder)
    images = [{"name": n, "kind": k, "source": str(files[n])} for n, k in (("vm", "vm"), ("box", "container"))]
    (folder / "lab.yaml").write_text(yaml.safe_dump({"networks": [NETWORK], "images": images}))
    with cloud(base=BASE, lab_dir=folder, drivers__simulated_latency_s=str(LATENCY_S)) as c:
        yield c


def _round(c: Cloud, hosts: int, instances: int) -> dict[str, float]:
    """Measure two bursts, which are deleted again, where there are that many hosts and instances."""
    found: dict[str, float] = {}
    for key, submit in (("one_request", _one_request), ("thousand_requests", _many_requests)):
        names = [f"{key.split('_')[0]}-{hosts}-{number}" for number in range(BURST)]
        specs = [{**SHAPES[number % len(SHAPES)], "name": name} for number, name in enumerate(names)]
        before, began = _cpu(c), time.monotonic()
        submit(c, specs)
        accepted = time.monotonic() - began
        _until_all_run(c, instances + BURST)
        took, used = time.monotonic() - began, _cpu(c) - before
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in used.most_common())
        say(f"{BURST} on {hosts} hosts, {key}: {took:.2f} s ({accepted:.2f} s to accept); CPU seconds: {parts}; "
            f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
        found |= {f"{key}_s": round(took, 2), f"{key}_cpu_s": round(used.total(), 2)}
        if key == "thousand_requests":
            found |= _memory(c)
        _delete(c, names)
    return found


def _one_request(c: Cloud, specs: Sequence[dict[str, Any]]) -> None:
    c.call("POST", "/v1/instances", list(specs))


def _many_requests(c: Cloud, specs: Sequence[dict[str, Any]]) -> None:
    _each(c, "POST", [("/v1/instances", json.dumps(spec)) for spec in specs])


def _each(c: Cloud, method: str, asked: Sequence[tuple[str, str]]) -> None:
    """Make requests (path, body) over a few connections that stay open. Raise RuntimeError when one is refused."""
    at, mine = urlsplit(c.url), threading.local()
    headers = {"Authorization": f"Bearer {c.token}", "Content-Type": "application/json"}

    def ask(one: tuple[str, str]) -> None:
        if not hasattr(mine, "line"):
            mine.line = HTTPConnection(str(at.hostname), at.port, timeout=60)
        mine.line.request(method, one[0], one[1], headers)
        answer = mine.line.getresponse()
        said = answer.read()
        if answer.status != 202:
            raise RuntimeError(f"refused: {answer.status} {said[:500]!r}")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, asked))


def _enroll(c: Cloud, wanted: int) -> None:
    """Enroll simulated hosts."""
    c.call("POST", "/v1/hosts", [
        {"name": f"s{n}", "address": f"10.99.{n // 250}.{n % 250 + 1}", "driver": "fake"} for n in range(wanted)
    ])  # fmt: skip
    _until_idle(c)
    if (states := _states(c, "host")) != {"ready": wanted}:
        raise RuntimeError(f"{wanted} hosts were to be ready, but: {states}")


def _fill(c: Cloud, hosts: int, instances: int) -> None:
    """Let there be that many hosts and running instances. Raise RuntimeError when a look at all hosts finds less."""
    file = c.base / "planted.json"
    began = time.monotonic()
    with c.again(drivers__simulated_instances=str(file)):
        fill(c.base / "data" / "rackflow.db", file, hosts, instances, SMALL)
        say(f"{hosts} hosts and {instances} instances written in {time.monotonic() - began:.0f} s")
    looks = "SELECT count(*) FROM operation WHERE verb = 'reconcile' AND state = 'done'"
    before = _ask(c, looks)
    _until(lambda: _ask(c, looks) != before, "all hosts were to be looked at")
    if _ask(c, "SELECT count(*) FROM drift WHERE state = 'open'") != [(0,)] or _states(c, "host") != {"ready": hosts}:
        raise RuntimeError(f"the hosts do not have what was written: {_states(c, 'host')}")
    _until_all_run(c, instances)


def _delete(c: Cloud, names: Sequence[str]) -> None:
    _each(c, "DELETE", [(f"/v1/instances/{name}", "") for name in names])
    _until_idle(c)


def _until_all_run(c: Cloud, wanted: int) -> None:
    """Wait until no operation is under way and all instances run. Raise RuntimeError when one does not."""
    _until_idle(c)
    states = _states(c, "instance")
    if states != ({"running": wanted} if wanted else {}):
        raise RuntimeError(f"{wanted} were to run, but: {states}")


def _until_idle(c: Cloud) -> None:
    unfinished = ", ".join(f"'{state}'" for state in UNFINISHED)  # by its index: there are thousands that have ended
    query = f"SELECT count(*) FROM operation WHERE state IN ({unfinished}) AND verb != 'reconcile'"
    _until(lambda: _ask(c, query) == [(0,)], "all operations were to end")


def _until(holds: Callable[[], bool], wanted: str) -> None:
    """Wait for something. Raise RuntimeError when that takes too long."""
    until = time.monotonic() + LONGEST_S
    while not holds():
        if time.monotonic() > until:
            raise RuntimeError(f"{wanted} within {LONGEST_S} s")
        time.sleep(0.05)


def _states(c: Cloud, noun: str) -> dict[str, int]:
    return dict(_ask(c, f"SELECT state, count(*) FROM {noun} WHERE live_name IS NOT NULL GROUP BY state"))


def _ask(c: Cloud, query: str) -> list[Any]:
    """Look into the state database itself: to be asked would keep the front-end busy."""
    with closing(sqlite3.connect(f"file:{c.base}/data/rackflow.db?mode=ro", uri=True)) as line:
        return line.execute(query).fetchall()


def _cpu(c: Cloud) -> Counter[str]:
    """Return CPU seconds by part of the front-end."""
    return _by_part(c, lambda process: sum(process.cpu_times()[:2]))


def _memory(c: Cloud) -> dict[str, float]:
    """Return PSS in MiB: of API and worker, and of all processes."""
    pss = _by_part(c, lambda process: process.memory_full_info().pss / 2**20)
    return {"frontend_rss_mib": round(pss["api"] + pss["worker"]), "total_rss_mib": round(pss.total())}


def _by_part(c: Cloud, measure: Callable[[psutil.Process], float]) -> Counter[str]:
    found: Counter[str] = Counter()
    for process in c.processes():
        with suppress(psutil.Error):  # one of PostgreSQL's that has ended meanwhile
            words = process.cmdline()
            part = words[-1] if words[1:3] == ["-m", "daemon"] else process.name()
            found.update({part: measure(process)})
    return found


if __name__ == "__main__":
    main()
