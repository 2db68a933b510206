"""What rackflow costs beside the bare drivers, in the same run: `scripts/bench overhead`.

The last line is one JSON object. Batches are compared with the same calls made straight to the drivers, at the same
concurrency; the single container with pylxd's create and start alone.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from ipaddress import IPv4Interface
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import psutil
import pylxd
import yaml

from bench.cloud import RACKFLOW, Cloud, cloud, say
from core.ids import mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind
from drivers.hosts import Host, connect
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.network.base import NetworkSpec, NicSpec
from drivers.storage.base import VolumeSpec
from drivers.storage.seed import seed_texts
from drivers.transport.base import Endpoint
from drivers.transport.ssh import scan_host_key

PER_HOST = 8  # as WorkerSettings.instances_per_host
DATASTORE = DriverSettings().datastore_path
LXD_SOCKET = "/var/lib/lxd/unix.socket"


async def hosts_of(lab: Path, settings: DriverSettings) -> dict[str, Host]:
    """Connect to the hosts of the lab in a folder with the drivers alone."""
    found = {}
    for item in yaml.safe_load((lab / "lab.yaml").read_text())["hosts"]:
        key = await scan_host_key(item["address"])
        endpoint = Endpoint(
            item["name"], item["address"], 22, item.get("user", "root"), Path(item["key_file"]), key.public
        )
        found[item["name"]] = await connect(item["driver"], endpoint, settings)
    return found


async def at_once(jobs: Sequence[Callable[[], Awaitable[Any]]], limit: int) -> None:
    """Run jobs, `limit` at a time."""
    slots = asyncio.Semaphore(limit)

    async def one(job: Callable[[], Awaitable[Any]]) -> None:
        async with slots:
            await job()

    await asyncio.gather(*(one(job) for job in jobs))


def container(fingerprint: str, bridge: IPv4Interface, index: int) -> InstanceSpec:
    """Return what rackflow would define: an address of its own in its host's subnet. bridge: the host's lxcbr0."""
    uid = new_id()
    address = f"{bridge.network.network_address + 100 + index}/{bridge.network.prefixlen}"
    disk = DiskAttachment("root", "pool", "default", "raw", 0, image_fingerprint=fingerprint)
    nic = NicAttachment("eth0", mac_address(uid, 0), "lxcbr0", address=address, gateway=str(bridge.ip))
    return InstanceSpec(uid, on_host(uid), f"bare-{index}", InstanceKind.CONTAINER, 0.1, 32, (disk,), (nic,))


async def lxcbr0(host: Host) -> IPv4Interface:
    """Return the address of a host's container bridge."""
    return next(IPv4Interface(b.addresses[0]) for b in await host.network.bridges() if b.name == "lxcbr0")


async def bare_containers(hosts: list[Host], fingerprint: str, count: int) -> float:
    """Create and start containers through the driver; return seconds."""
    bridges = [await lxcbr0(host) for host in hosts]
    specs = [container(fingerprint, bridges[i % len(hosts)], i) for i in range(count)]
    begun = time.monotonic()

    async def on(host: Host, mine: list[InstanceSpec]) -> None:
        async def one(spec: InstanceSpec) -> None:
            await host.hypervisor.define(spec)
            await host.hypervisor.start(spec.name)

        await at_once([lambda s=s: one(s) for s in mine], PER_HOST)  # type: ignore[misc]

    await asyncio.gather(*(on(h, specs[i :: len(hosts)]) for i, h in enumerate(hosts)))
    took = time.monotonic() - begun
    for index, host in enumerate(hosts):
        await at_once([lambda s=s, h=host: remove(h, s) for s in specs[index :: len(hosts)]], PER_HOST)  # type: ignore[misc]
    return took


async def remove(host: Host, spec: InstanceSpec) -> None:
    """Take a bare instance away again."""
    await host.hypervisor.stop(spec.name, grace_s=0)
    await host.hypervisor.undefine(spec.name)
    if spec.kind is InstanceKind.VM:
        await host.storage(DATASTORE).delete_volumes(spec.id)


async def bare_vms(hosts: list[Host], sha256: str, count: int) -> float:
    """Make disks, define and start VMs through the drivers; return seconds."""
    made: list[tuple[Host, InstanceSpec]] = []

    async def one(host: Host, index: int) -> None:
        uid = new_id()
        storage = host.storage(DATASTORE)
        lan = NetworkSpec("lan", "bridge", "br0")
        nic = await host.network.ensure_nic(lan, NicSpec(0, mac_address(uid, 0), f"198.18.17.{200 + index}/24"))
        disk = await storage.ensure_volume(VolumeSpec(uid, "root", 0, sha256))
        seed = await storage.ensure_seed(
            seed_texts(instance_id=uid, hostname="bare", ssh_keys=(), user_data="", nics=[nic])
        )
        spec = InstanceSpec(uid, on_host(uid), f"bare-{index}", InstanceKind.VM, 1, 128, (disk, seed), (nic,))
        await host.hypervisor.define(spec)
        await host.hypervisor.start(spec.name)
        made.append((host, spec))

    begun = time.monotonic()
    await asyncio.gather(*(one(hosts[i % len(hosts)], i) for i in range(count)))
    took = time.monotonic() - begun
    await asyncio.gather(*(remove(host, spec) for host, spec in made))
    return took


async def bare_single(host: Host, fingerprint: str) -> float:
    """Create and start one container with pylxd alone, over the forwarded socket; return seconds."""
    socket = await host.transport.forward(LXD_SOCKET)
    name = f"bare-{new_id()}"

    def run() -> float:
        client = pylxd.Client(f"http+unix://{quote(str(socket), safe='')}")
        begun = time.monotonic()
        config = {"name": name, "source": {"type": "image", "fingerprint": fingerprint}, "profiles": ["default"]}
        made = client.containers.create(
            config | {"devices": {"root": {"path": "/", "pool": "default", "type": "disk"}}}, wait=True
        )
        made.start(wait=True)
        took = time.monotonic() - begun
        made.stop(force=True, wait=True)
        made.delete(wait=True)
        return took

    return await asyncio.to_thread(run)


def deploy(c: Cloud, spec: dict[str, Any] | list[dict[str, Any]]) -> tuple[float, float, list[dict[str, Any]]]:
    """Deploy; return seconds to accepted, seconds to the end, and the operations."""
    begun = time.monotonic()
    answer = c.call("POST", "/v1/instances", spec)
    accepted = time.monotonic() - begun
    rows = c.wait([o["id"] for o in answer["operations"]])
    took = time.monotonic() - begun
    bad = [r for r in rows if r["state"] != "done"]
    if bad:
        raise SystemExit(f"deployment failed: {json.dumps(bad[0], indent=1)}")
    return accepted, took, rows


def delete(c: Cloud, names: Sequence[str]) -> None:
    """Delete instances and wait."""
    ids = [o["id"] for name in names for o in c.call("DELETE", f"/v1/instances/{name}")["operations"]]
    c.wait(ids)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def singles(
    c: Cloud, fingerprint: str, host: Host, loop: asyncio.AbstractEventLoop, rounds: int = 7
) -> dict[str, float]:
    """Measure one container at a time, rackflow and pylxd in turns."""
    bare, whole, accept, begin = [], [], [], []
    for i in range(rounds):
        spec = {"name": f"one-{i}", "image": "busybox", "cpu": 0.1, "memory": 32, "requirements": {"host": host.name}}
        accepted, took, rows = deploy(c, spec)
        whole.append(took)
        accept.append(accepted)
        begin.append((at(rows[0]["steps"][0]["started_at"]) - at(rows[0]["created_at"])).total_seconds())
        delete(c, [f"one-{i}"])
        bare.append(loop.run_until_complete(bare_single(host, fingerprint)))
    return {
        "container_bare_s": median(bare),
        "container_s": median(whole),
        "container_overhead_s": median(whole) - median(bare),
        "api_accept_ms": median(accept) * 1000,
        "start_latency_s": median(begin),
    }


def batch(
    c: Cloud, name: str, spec: dict[str, Any], bare: Callable[[], float], count: int, hosts: list[Host]
) -> dict[str, float]:
    """Measure a batch, shared out evenly, through rackflow and straight to the drivers: best of two each, in turns.

    One straight batch goes before, unmeasured: the first one of a fresh LXD takes half as long as every later one.
    """
    specs = [spec | {"name": f"{name}-{i}", "requirements": {"host": hosts[i % len(hosts)].name}} for i in range(count)]
    bare()
    own, straight = [], []
    for _ in range(2):
        straight.append(bare())
        own.append(deploy(c, specs)[1])
        delete(c, [str(one["name"]) for one in specs])
    bare_s, took = min(straight), min(own)
    return {f"{name}_batch_bare_s": bare_s, f"{name}_batch_s": took, f"{name}_batch_ratio": (took - 1) / bare_s}


def ui_latency(c: Cloud, rounds: int = 8) -> float:
    """Create runs as Prefect's UI does; return the median of seconds until they begin."""
    endpoint = json.loads(Path(c.env["RACKFLOW_RUN_DIR"], "endpoint.json").read_text())
    password = Path(endpoint["prefect_password_file"]).read_text().strip()
    auth = "Basic " + b64encode(f"admin:{password}".encode()).decode()
    opener = build_opener(ProxyHandler({}))

    def call(method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": auth, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with opener.open(Request(endpoint["prefect_api"] + path, data, headers, method=method), timeout=30) as answer:
            return json.load(answer)

    deployment = call("GET", "/deployments/name/reconcile/reconcile")["id"]
    found = []
    for _ in range(rounds):
        run = call(
            "POST", f"/deployments/{deployment}/create_flow_run", {"parameters": {}, "state": {"type": "SCHEDULED"}}
        )
        while not (row := call("GET", f"/flow_runs/{run['id']}"))["start_time"] or row["state_type"] not in (
            "COMPLETED",
            "FAILED",
        ):
            time.sleep(0.2)
        found.append((at(row["start_time"]) - at(run["created"])).total_seconds())
        time.sleep(0.37)  # so that the rounds do not fall into step with the polling
    return median(found)


def cli_start_ms(c: Cloud, rounds: int = 11) -> float:
    """Return what the command line takes beyond the API's answer."""
    own, api = [], []
    for _ in range(rounds):
        begun = time.monotonic()
        subprocess.run([RACKFLOW, "instance", "list", "-o", "json"], env=c.env, check=True, capture_output=True)
        own.append(time.monotonic() - begun)
        begun = time.monotonic()
        c.call("GET", "/v1/instances")
        api.append(time.monotonic() - begun)
    return (median(own) - median(api)) * 1000


def idle(c: Cloud, seconds: float = 60) -> dict[str, float]:
    """Return CPU percent of one core and PSS of all processes of rackflow, nothing being asked of it."""
    time.sleep(5)
    processes = c.processes()
    before = {p.pid: sum(p.cpu_times()[:2]) for p in processes}
    time.sleep(seconds)
    used = 0.0
    for process in c.processes():
        used += sum(process.cpu_times()[:2]) - before.get(process.pid, 0.0)
    pss = {p.pid: p.memory_full_info().pss / 2**20 for p in c.processes()}
    for process in c.processes():
        say(f"{pss.get(process.pid, 0):6.0f} MiB  {' '.join(process.cmdline())[:90]}")
    return {"idle_cpu_percent": used / seconds * 100, "rss_mib": sum(pss.values())}


def main() -> None:
    """Run all and print the figures."""
    with cloud("kvm:2", "lxd:2") as c:
        figures: dict[str, float] = idle(c)
        loop = asyncio.new_event_loop()
        images = {i["name"]: i["sha256"] for i in c.call("GET", "/v1/images")}
        hosts = loop.run_until_complete(hosts_of(Path(c.env["LAB_DIR"]), DriverSettings(domain_type="qemu")))
        lxd = [h for h in hosts.values() if h.kind == "lxd"]
        kvm = [h for h in hosts.values() if h.kind == "kvm"]
        for name in ("tiny", "busybox"):  # no benchmark of copying images
            c.rackflow("image", "stage", name)
        say("one container at a time")
        figures |= singles(c, images["busybox"], lxd[0], loop)
        say("40 containers on 2 hosts")
        figures |= batch(
            c,
            "container",
            {"image": "busybox", "cpu": 0.1, "memory": 32},
            lambda: loop.run_until_complete(bare_containers(lxd, images["busybox"], 40)),
            40,
            lxd,
        )
        say("6 VMs on 2 hosts")
        figures |= batch(
            c,
            "vm",
            {"image": "tiny", "cpu": 1, "memory": 128},
            lambda: loop.run_until_complete(bare_vms(kvm, images["tiny"], 6)),
            6,
            kvm,
        )
        say("Prefect's UI, the command line")
        figures |= {"ui_start_latency_s": ui_latency(c), "cli_start_ms": cli_start_ms(c)}
        figures["cpu_s"] = sum(sum(p.cpu_times()[:2]) for p in c.processes() if isinstance(p, psutil.Process))
        for host in hosts.values():
            loop.run_until_complete(host.close())
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
