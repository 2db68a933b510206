"""A server with an empty disk, by real PXE, Inspector and Redfish: looked at, installed, and made a host."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import tasks.install
from analytics.client import AnalyticsClient
from api.app import create_app
from blueprints.network import NetworkSpec
from control import access, drift, host_facts, hosts, machines, networks
from control.configuring import CONFIGURATION
from control.hosts import HostRecord
from control.operations import Operation
from core.errors import Unreachable
from core.settings import DriverSettings
from core.states import HostState, InstanceState, MachinePower, MachineState, OperationState, Verb
from drivers.baremetal.base import BmcEndpoint
from drivers.baremetal.redfish import RedfishBmc
from drivers.fake_world import world
from drivers.transport.base import Endpoint, Transport
from drivers.transport.ssh import connect
from lab import images
from lab.baremetal.services import USER, is_installed
from lab.baremetal.site import Site, servers
from lab.settings import LabSettings, load
from lab.shell import run
from tasks.runtime import set_runtime
from tests.integration.line import Line, make_line, without_prefect
from tests.integration.pump import Pump, host_of

ROLES = {"lxd": ("container", images.BUSYBOX, "lxcbr0"), "kvm": ("vm", images.TINY, "br0")}
STEPS = ["power", "inspect", "classify", "check", "ramdisk", "install", "boot", "configure", "enroll", "verify"]
OFF = "shut off"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> LabSettings:
    folder = tmp_path_factory.mktemp("room")
    return LabSettings(folder, folder / "shared", load().cache)


@pytest.fixture(scope="module")
def site(settings: LabSettings) -> Iterator[Site]:
    if not is_installed():
        pytest.skip("the services of bare metal are not installed: scripts/test does that")
    made = Site(settings, [replace(servers(1)[0], memory_mib=3072)])  # Ironic's agent needs that
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    with without_prefect():
        made = await make_line(tmp_path, hosts=1)
        made.runtime.claim_until = time.monotonic() + 7200  # nobody renews it here
        yield made
        await made.runtime.pool.close()
        await made.store.close()
    set_runtime(None)
    world.reset()


def power(site: Site) -> str:
    return run(["virsh", "-c", site.libvirt.uri, "domstate", site.servers[0].name]).strip()


async def enroll(line: Line, entry: dict[str, Any], limit_s: float) -> Operation:
    ids = line.submit(Verb.ENROLL_MACHINE, {"machines": [entry]})
    (op,) = await Pump(line).until(ids, limit_s)
    return op


async def test_what_a_server_is_made_of_is_told_by_a_ramdisk_that_it_boots(site: Site, line: Line) -> None:
    """Redfish, DHCP, iPXE, kernel, the ramdisk's post to Inspector, and the server is off again."""
    server = site.servers[0]
    entry = {key: value for key, value in site.machine(server).items() if key != "host"}
    op = await enroll(line, entry, 300)
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert line.steps(op.id) == [(name, "done") for name in STEPS[:4]]
    assert power(site) == OFF
    assert "inventory posted" in site.libvirt.file(server, "console").read_text()
    shown = line.store.read_now(lambda c: machines.show(c, line.admin, server.name))
    found = shown["inventory"]
    (disk,), (nic,) = found["disks"], found["nics"]
    assert (shown["state"], found["serial"]) == (MachineState.READY, f"{server.name}-{server.mac}")
    assert (found["cpu"]["count"], found["memory_mib"]) == (2, server.memory_mib)
    assert (disk["serial"], disk["size_bytes"]) == (f"{server.name}-0", server.disk_gib * 2**30)
    assert (nic["mac"], nic["address"].rpartition(".")[0]) == (server.mac, site.pxe.net)


@pytest.mark.slow  # 360 s on two cores with a load of 28; not measured on idle ones
async def test_an_image_that_does_not_answer_leaves_the_server_off_and_tells_why(
    site: Site, line: Line, settings: LabSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop up to the first start from disk, with a small image that takes no address from us."""
    monkeypatch.setattr(tasks.install, "BOOT_S", 2.0)
    images.build(settings, "tiny")
    raw, packed = tmp_path / "tiny.raw", tmp_path / "tiny.raw.gz"
    run(["qemu-img", "convert", "-O", "raw", str(images.image_path(settings, images.TINY)), str(raw)])
    packed.write_bytes(gzip.compress(raw.read_bytes(), 1))
    server = site.servers[0]
    install = site.installed_by(server, str(packed), hashlib.sha256(packed.read_bytes()).hexdigest())
    op = await enroll(line, {**site.machine(server), "install": install}, 900)
    assert [name for name, state in line.steps(op.id) if state == "done"] == STEPS[:6], op.error
    assert "does it start from the disk that was written?" in (op.error or {})["fix"]
    assert power(site) == OFF
    shown = line.store.read_now(lambda c: machines.show(c, line.admin, server.name))
    size = shown["inventory"]["disks"][0]["size_bytes"]
    assert (shown["state"], size) == (MachineState.FAULTY, server.disk_gib * 2**30)
    disk = tmp_path / "disk.raw"
    image = site.libvirt.file(server, "qcow2")
    run(["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", "bs=1M", "count=80", f"if={image}", f"of={disk}"])
    assert int(run(["grep", "-c", "-a", f"ssh-ed25519 .* {server.name}$", str(disk)])) >= 1  # the planted host key


@pytest.mark.slow
@pytest.mark.parametrize(("role", "by"), [("lxd", "ramdisk"), ("kvm", "ramdisk"), ("kvm", "ironic")])
async def test_an_empty_disk_becomes_a_ready_host(
    site: Site, line: Line, settings: LabSettings, role: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, file, bridge = ROLES[role]
    steps = [name for name in STEPS if by == "ramdisk" or name != "ramdisk"]
    images.build(settings, "tiny")
    image = {"name": "real", "kind": kind, "source": str(images.image_path(settings, file)), "min_memory": "112MiB"}
    await line.run(Verb.IMPORT, {"images": [image]})
    if kind == "container":
        lan = {
            "name": "lan", "bridge": "br0", "subnet": "10.9.0.0/16", "default_for": ["vm"],
            "ranges": [{"first": "10.9.0.10", "last": "10.9.9.250"}],
        }  # fmt: skip
        own = {"name": "containers", "bridge": bridge, "addressing": "host", "default_for": ["container"]}
        for spec in (lan, own):
            line.store.write_now(lambda c, s=spec: networks.ensure(c, line.admin, NetworkSpec.model_validate(s)))  # type: ignore[misc]
    server = site.servers[0]
    entry = site.machine(server)
    host: dict[str, Any] = {"key_file": str(site.key), "role": role, "test_image": "real"}
    host["bridges"] = [{"name": bridge, "address": "198.19.60.1/24"}]
    written = site.image if by == "ramdisk" else site.unpacked()
    install = {**site.installed_by(server, *written), "by": by, "overwrite": True}
    op = await enroll(line, {**entry, "install": install, "host": host}, 1800)
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert line.steps(op.id) == [(name, "done") for name in steps]
    record = line.store.read_now(lambda c: hosts.get(c, server.name))
    assert (record.state, record.driver, record.cpus) == (HostState.READY, role, 2.0)
    (again,) = await line.run(Verb.CONFIGURE, {"hosts": [server.name]})
    assert (again.state, again.error) == (OperationState.DONE, None)
    await drifts_and_is_mended(line, record, monkeypatch)
    await sleeps_until_it_is_needed(line, site, server.name, kind)
    run(["virsh", "-c", site.libvirt.uri, "destroy", server.name])


async def drifts_and_is_mended(line: Line, host: HostRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody changed on a host is told, by the API too, left alone, and mended when that is asked for."""

    async def forwards() -> str:
        return (await t.run(["cat", "/proc/sys/net/ipv4/ip_forward"])).stdout.strip()

    async def told() -> list[str]:
        answer = await client.get(f"/v1/hosts/{host.name}/configuration", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["actions"])

    def drifted() -> list[list[str]]:
        rows = line.store.read_now(lambda c: drift.list_(c, line.admin))
        return [row["seen"]["missing"] for row in rows if row["kind"] == CONFIGURATION]

    rt = line.runtime
    monkeypatch.setattr(host_facts, "due", lambda *_: True)  # else it is looked at after a boot, and daily
    token = line.store.write_now(lambda c: access.new_token(c, line.admin, "test"))
    app = create_app(rt.settings, line.store, AnalyticsClient(rt.settings.paths.analytics_socket), lambda: None)
    async with app.router.lifespan_context(app):
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rackflow")
        t = await rt.pool.transport(rt.endpoint(host))
        assert (await told(), drifted()) == ([], [])
        await t.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])
        (missing,) = [await told()]
        assert len(missing) == 1
        await line.run(Verb.RECONCILE, {"hosts": [host.name]})
        assert (drifted(), await forwards()) == ([missing], "0")
        (op,) = await line.run(Verb.CONFIGURE, {"hosts": [host.name]})
        assert (op.state, await forwards(), await told(), drifted()) == (OperationState.DONE, "1", [], [])
        await client.aclose()


async def sleeps_until_it_is_needed(line: Line, site: Site, name: str, kind: str) -> None:
    """Off by its BMC while nobody needs it; what fits nowhere else has it switched on, and runs there."""
    (op,) = await line.run(Verb.SLEEP, {"hosts": [name]})
    assert op.error is None, op.error
    assert (host_of(line, name).state, power(site)) == (HostState.ASLEEP, OFF)
    woken = {
        "name": "woken", "image": "real", "kind": kind, "cpu": 0.1, "memory": "128MiB", "requirements": {"host": name},
    }  # fmt: skip
    (op,) = await Pump(line).until(line.submit(Verb.DEPLOY, {"instances": [woken]}), 900)
    assert op.error is None, op.error
    assert (line.instance("woken")["state"], line.instance("woken")["host"]) == (InstanceState.RUNNING, name)
    host = host_of(line, name)
    assert (host.state, (host.power or {})["cycles"]) == (HostState.READY, 1)
    await line.run(Verb.RECONCILE, {"hosts": [name]})
    assert line.store.read_now(lambda c: drift.list_(c, line.admin)) == [], "it boots as it was configured"
    (op,) = await line.run(Verb.DELETE, {"instances": ["woken"]})
    assert op.error is None, op.error


@pytest.mark.slow
async def test_a_rescue_is_a_way_in_and_the_bmc_tells_of_the_machine(site: Site, line: Line) -> None:
    server = site.servers[0]
    await known(site, line)
    (op,) = await line.run(Verb.CHANGE_MACHINE, {"machines": [server.name], "action": "rescue"})
    assert (op.state, op.error) == (OperationState.DONE, None)
    (nic,) = line.store.read_now(lambda c: machines.show(c, line.admin, server.name))["inventory"]["nics"]
    endpoint = Endpoint(server.name, nic["address"], 22, "root", site.key, site.ramdisk_key)
    async with asyncio.timeout(180):
        while (t := await answers(endpoint)) is None:
            await asyncio.sleep(1)
    assert "ipa-inspection-callback-url" in (await t.run(["cat", "/proc/cmdline"])).stdout
    await t.close()
    where = BmcEndpoint(server.name, site.services.url("bmc"), USER, None, site.services.password, True, server.uuid)
    bmc = RedfishBmc(where, line.runtime.settings.drivers)
    assert await bmc.power() is MachinePower.ON
    assert await bmc.identify(True)
    assert await bmc.identify(False)
    assert await bmc.events() == ()  # this emulator keeps none
    assert [nic.mac for nic in (await bmc.inspect()).nics] == [server.mac]
    await bmc.close()
    (op,) = await line.run(Verb.CHANGE_MACHINE, {"machines": [server.name], "action": "power-cut"})
    assert (op.state, power(site)) == (OperationState.DONE, OFF)


@pytest.mark.slow
async def test_ironics_agent_wipes_a_disk(site: Site, line: Line) -> None:
    server = site.servers[0]
    image = ["-f", "qcow2", str(site.libvirt.file(server, "qcow2"))]
    await known(site, line)
    run(["qemu-io", "-c", "write -P 0x5a 1G 1M", *image])
    site.unpacked()
    (op,) = await line.run(Verb.CHANGE_MACHINE, {"machines": [server.name], "action": "erase"})
    assert op.error is None, op.error
    assert op.state is OperationState.DONE
    assert power(site) == OFF
    assert "verification failed" not in run(["qemu-io", "-c", "read -P 0 1G 1M", *image])


async def known(site: Site, line: Line) -> None:
    """Enroll the server as one that becomes nothing yet."""
    entry = {key: value for key, value in site.machine(site.servers[0]).items() if key != "host"}
    op = await enroll(line, entry, 300)
    assert (op.state, op.error) == (OperationState.DONE, None)


async def answers(endpoint: Endpoint) -> Transport | None:
    try:
        return await connect(endpoint, DriverSettings(connect_timeout_s=2))
    except Unreachable:
        return None
