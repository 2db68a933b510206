"""The whole lab: up, down, status. Only one lab can exist on a machine: its namespaces' names are the machine's."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import Conflict, HostFault
from lab import bmc_process, delay, hosts, keys, leftovers, network, vsphere
from lab.blueprint import write_blueprint
from lab.settings import OWNER_FILE, SWITCH, LabSettings
from lab.topology import LabHost, Topology, parse, read, save

_LOCK = Path("/run/lock/rackflow-lab.lock")


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the machine's lab lock: two commands that change the lab run one after the other."""
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(settings: LabSettings, words: list[str], say: Callable[[str], None]) -> bool:
    """Make and boot the hosts; False when that lab is up already. What an earlier, crashed lab left is removed.

    Raise Conflict when another lab runs, HostFault when a host does not boot (all is removed again).
    """
    wanted = parse(words)
    _refuse_foreign(settings)
    present = read(settings)
    if present.complete and network.exists(SWITCH):
        if present.hosts != wanted.hosts:
            have = ", ".join(f"{host.name} {host.kind}" for host in present.hosts)
            raise Conflict(f"a lab with other hosts is up ({have})", "lab", fix="take it down first: lab down")
        refresh_blueprint(settings)
        bmcs = bmc_process.start(settings)
        return bmcs | any(_each(present.hosts, lambda host: start(settings, host)))
    if leftovers.find(settings):
        say("removing what an earlier lab left")
        down(settings)
    _create(settings, wanted)
    return True


def refresh_blueprint(settings: LabSettings) -> None:
    """Write lab.yaml again if there is a lab: it names the images by their checksums, and they may be new."""
    present = read(settings)
    if present.complete:
        write_blueprint(settings, present)


def _create(settings: LabSettings, topology: Topology) -> None:
    settings.shared.mkdir(parents=True, exist_ok=True)
    OWNER_FILE.write_text(f"{settings.dir}\n")
    save(settings, topology)
    try:
        keys.make_keys(settings, topology)
        keys.write_access_files(settings, topology)
        network.switch_up(settings, topology)
        bmc_process.start(settings)
        _each(topology.hosts, lambda host: _first_start(settings, host, topology))
        write_blueprint(settings, topology)
    except BaseException:
        down(settings)
        raise
    save(settings, replace(topology, complete=True))


def _first_start(settings: LabSettings, host: LabHost, topology: Topology) -> bool:
    hosts.make_disk(settings, host)
    return hosts.start(settings, host, topology)


def start(settings: LabSettings, host: LabHost) -> bool:
    """Boot a host again from its disk, with the delay that its line had; False when it was up."""
    changed = hosts.start(settings, host, read(settings))
    delay.resume(settings, host)
    return changed


def crash(settings: LabSettings, host: LabHost) -> bool:
    """Cut a host's power; False when it was off."""
    delay.suspend(settings, host)
    return hosts.crash(settings, host)


def down(settings: LabSettings) -> None:
    """Remove everything; safe to run on half a lab or none. Raise HostFault with the list if something stays."""
    _refuse_foreign(settings)
    bmc_process.stop()  # first, so that none of them starts a host again
    vsphere.stop()
    _each(_all_hosts(settings), lambda host: _remove(settings, host))
    network.switch_down()
    _delete_files(settings)
    hosts.wait_until(lambda: not leftovers.find(settings))
    rest = leftovers.find(settings)
    if rest:
        raise HostFault("the lab left something: " + "; ".join(map(str, rest)), "lab")


def _delete_files(settings: LabSettings) -> None:
    for path in leftovers.made_files(settings):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or something in it that is not the lab's
        settings.dir.rmdir()
    OWNER_FILE.unlink(missing_ok=True)


def _all_hosts(settings: LabSettings) -> tuple[LabHost, ...]:
    """Return the hosts of the record and those of which only namespaces or groups tell."""
    known = {host.number: host for host in read(settings).hosts}
    for number in leftovers.host_numbers():
        known.setdefault(number, LabHost(number, "kvm"))
    return tuple(known.values())


def _remove(settings: LabSettings, host: LabHost) -> bool:
    crash(settings, host)
    hosts.forget(settings, host)
    return True


def status(settings: LabSettings) -> list[dict[str, Any]]:
    """Return one JSON-ready object per host."""
    return [
        {
            "name": host.name, "kind": host.kind, "state": "down" if pid is None else "up", "pid": pid,
            "address": settings.management(host.last_octet), "data_address": settings.data(host.last_octet),
            "fingerprint": keys.fingerprint(settings, host), "delay_ms": delay.current(settings, host),
        }
        for host in read(settings).hosts
        for pid in [hosts.process_1(settings, host)]
    ]  # fmt: skip


def _refuse_foreign(settings: LabSettings) -> None:
    """Raise Conflict if a lab with another folder runs: its namespaces must not be taken for ours."""
    with suppress(FileNotFoundError):
        owner = OWNER_FILE.read_text().strip()
        if owner != str(settings.dir) and Path(owner).is_dir() and network.exists(SWITCH):
            raise Conflict(f"another lab is up, in {owner}", "lab", fix=f"LAB_DIR={owner} python -m lab down ends it")


def _each(of: tuple[LabHost, ...], action: Callable[[LabHost], bool]) -> list[bool]:
    """Do it for all hosts at once; every one is finished before the first error is raised."""
    if not of:
        return []
    with ThreadPoolExecutor(max_workers=min(len(of), 8)) as pool:
        futures = [pool.submit(action, host) for host in of]
    return [future.result() for future in futures]
