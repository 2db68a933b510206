"""KVM: devices that come and go, memory in files that are not whole, consoles, domains that were adopted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.errors import Busy, Conflict, Unsupported
from core.ids import new_id
from core.settings import DriverSettings
from core.states import PowerState
from drivers.conformance.tools import settle
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.kvm import KvmHypervisor
from drivers.transport.ssh import connect
from tests.labs import Lab
from tests.live.kvm_powers import Pair, pair_of


@pytest.fixture
async def pair(lab: Lab) -> AsyncIterator[Pair]:
    async with pair_of(lab) as found:
        yield found


async def in_guest(pair: Pair, spec: InstanceSpec, command: str) -> str:
    return (await pair.source.exec(spec.name, ["sh", "-c", command])).stdout.strip()


class TestReconfigure:
    async def test_devices_keep_their_places(self, pair: Pair) -> None:
        spec = await pair.running()
        one, two = [await pair.disk(spec, name, size_mib) for name, size_mib in (("data1", 16), ("data2", 24))]
        both = await pair.with_nic(replace(spec, disks=(*spec.disks, one, two)))
        assert await pair.source.reconfigure(both) is True
        async with asyncio.timeout(20):  # it takes the guest a moment
            while not all([await self.disk_in_guest(pair, spec, name) for name in ("data1", "data2")]):
                await asyncio.sleep(0.2)
        before = await self.disk_in_guest(pair, spec, "data2")
        nics = await in_guest(pair, spec, "readlink -f /sys/class/net/*/device")
        assert before.endswith(" 49152")
        last = replace(both, disks=(*spec.disks, two))
        assert await pair.source.reconfigure(last) is True
        assert await self.disk_in_guest(pair, spec, "data2") == before
        grown = replace(last, disks=(*spec.disks, replace(two, size_mib=40)))
        assert await pair.source.reconfigure(grown) is True
        after = before.replace("49152", "81920")
        assert await self.disk_in_guest(pair, spec, "data2") == after
        await pair.source.stop(spec.name, grace_s=0)
        assert await pair.source.define(grown) is False
        await pair.source.start(spec.name)
        await pair.here.ready(spec.name)
        assert await self.disk_in_guest(pair, spec, "data2") == after
        assert await in_guest(pair, spec, "readlink -f /sys/class/net/*/device") == nics
        assert "target dev='vdc'" in pair.here.lab.run("h1", f"virsh dumpxml {spec.name}")

    @pytest.mark.slow
    async def test_a_machine_of_the_other_kind(self, pair: Pair) -> None:
        spec = await pair.new()
        spec = await pair.running(replace(spec, options=(*spec.options, ("machine", "q35"))))
        more = await pair.with_nic(await pair.with_disk(spec))
        assert [await pair.source.reconfigure(more), await pair.source.reconfigure(more)] == [True, False]
        assert await pair.source.define(more) is False
        await pair.source.stop(spec.name, grace_s=0)
        await pair.source.start(spec.name)
        await pair.here.ready(spec.name)
        assert await settle(lambda: pair.source.reconfigure(spec)) is True

    @staticmethod
    async def disk_in_guest(pair: Pair, spec: InstanceSpec, name: str) -> str:
        """Return a disk's PCI slot and size in sectors, "" if it is not there."""
        look = """for d in /sys/block/vd*; do [ "$(cat $d/serial)" != NAME ] ||
          echo $(readlink -f $d/device | cut -d/ -f5) $(cat $d/size); done"""
        return await in_guest(pair, spec, look.replace("NAME", name))

    async def test_what_needs_it_off_is_refused_before_anything_is_changed(self, pair: Pair) -> None:
        spec = replace(await pair.new(), cpu=2)
        await pair.running(spec)
        before = pair.here.lab.run("h1", f"virsh dumpxml {spec.name}")
        root, seed = spec.disks
        with_disk = await pair.with_disk(spec)
        for refused, words in (
            (replace(with_disk, cpu=1), "1 vCPUs, fewer than its 2"),
            (replace(with_disk, cpu=3), "3 vCPUs, it was started for at most 2"),
            (replace(with_disk, memory_mib=512), "512 MiB, it was started for at most 192"),
            (replace(with_disk, disks=(replace(root, source="/elsewhere"), seed)), "disk root is to become /elsewhere"),
            (replace(with_disk, nics=(replace(spec.nics[0], model="e1000"),)), "NIC eth0 is to become an e1000"),
        ):
            with pytest.raises(Unsupported, match=words):
                await pair.source.reconfigure(refused)
        assert pair.here.lab.run("h1", f"virsh dumpxml {spec.name}") == before

    async def test_shares_of_a_core_and_less_memory(self, pair: Pair) -> None:
        spec = await pair.running()
        less = replace(spec, cpu=0.5, memory_mib=120)
        assert [await pair.source.reconfigure(less), await pair.source.reconfigure(less)] == [True, False]
        assert (await pair.source.observe(spec.name)).memory_mib == 120
        assert "vcpu_quota     : 50000" in pair.here.lab.run("h1", f"virsh schedinfo {spec.name}")
        assert [await pair.source.reconfigure(spec), await pair.source.reconfigure(spec)] == [True, False]

    async def test_another_bridge(self, pair: Pair) -> None:
        spec = await pair.running()
        pair.here.lab.run("h1", "ip link add rftest7 type bridge; ip link set rftest7 up")
        try:
            moved = replace(spec, nics=(replace(spec.nics[0], bridge="rftest7"),))
            assert [await pair.source.reconfigure(moved), await pair.source.reconfigure(moved)] == [True, False]
            assert "vnet" in pair.here.lab.run("h1", "ls /sys/class/net/rftest7/brif")
        finally:
            pair.here.lab.run("h1", "ip link del rftest7")

    @pytest.mark.slow
    async def test_a_guest_that_does_not_listen(self, pair: Pair) -> None:
        spec = await pair.running()
        with_disk = await pair.with_disk(spec)
        await pair.source.reconfigure(with_disk)
        await pair.source.suspend(spec.name)
        with pytest.raises(Busy, match="has not let go of vdb"):
            await pair.source.reconfigure(spec)
        await pair.source.resume(spec.name)
        assert await settle(lambda: pair.source.reconfigure(spec)) is True
        assert await pair.source.reconfigure(spec) is False


class TestSavedMemory:
    @pytest.mark.slow
    async def test_libvirtd_is_killed_in_the_middle(self, pair: Pair) -> None:
        spec, path = await pair.running(), f"{pair.folder}/memory.save"
        await pair.source.exec(spec.name, ["tee", "/dev/kept"], stdin=b"kept")
        saving = asyncio.ensure_future(pair.source.save(spec.name, path))
        async with asyncio.timeout(20):
            while await pair.file_bytes(path) < 1:
                await asyncio.sleep(0.01)
        pair.here.lab.run("h1", "kill -9 $(pgrep -xo libvirtd)")
        await asyncio.gather(saving, return_exceptions=True)
        async with asyncio.timeout(20):  # the new libvirtd shows it as paused until it has let it go on
            while (await settle(lambda: pair.source.observe(spec.name))).power is PowerState.PAUSED:
                await asyncio.sleep(0.05)
        seen = await pair.source.observe(spec.name)
        assert seen.power is PowerState.RUNNING or await pair.source.has_state(path)
        await settle(lambda: pair.source.save(spec.name, path))
        assert await pair.source.has_state(path)
        await pair.source.restore(spec.name, path)
        assert await in_guest(pair, spec, "cat /dev/kept") == "kept"

    async def test_a_part_of_a_file(self, pair: Pair) -> None:
        spec, path = await pair.running(), f"{pair.folder}/memory.save"
        await pair.source.save(spec.name, path)
        pair.here.lab.run("h1", f"printf LibvirtQemudPart | dd of={path} conv=notrunc status=none")
        assert await pair.source.has_state(path) is False
        for call in (pair.source.save, pair.source.restore):
            with pytest.raises(Conflict):
                await call(spec.name, path)


class TestConsole:
    @pytest.mark.slow
    async def test_one_at_a_time_and_nothing_stays_behind(self, pair: Pair, lab: Lab) -> None:
        spec = await pair.running()
        pty = lab.run("h1", f"virsh ttyconsole {spec.name}").strip()
        open_by = f"ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c {pty}$ || true"
        before = lab.run("h1", open_by)
        dying = await connect(lab.endpoint("h1"), DriverSettings())
        other = KvmHypervisor(dying, DriverSettings())
        async with pair.source.console(spec.name) as stream:
            assert lab.run("h1", open_by) != before
            with pytest.raises(Busy, match="open elsewhere"):
                await other.console(spec.name).__aenter__()
            await stream.write(b"\necho a$((1+1))b\n")
        lost = other.console(spec.name)
        await settle(lost.__aenter__)
        await dying.close()
        async with asyncio.timeout(20):
            while lab.run("h1", open_by) != before:
                await asyncio.sleep(0.2)
        async with pair.source.console(spec.name) as stream:
            await stream.write(b"\necho a$((2+1))b\n")
            seen = b""
            async with asyncio.timeout(20):
                while b"a3b" not in seen:
                    seen += await stream.read()
        assert "a3b" in await pair.source.console_log(spec.name), "the log goes on"


class TestAdopted:
    async def foreign(self, pair: Pair) -> tuple[str, InstanceSpec]:
        """Start a VM that somebody else made."""
        spec, name = await pair.here.new(), f"foreign-{new_id()[-6:]}"
        pair.foreign.append(name)
        root, nic = spec.disks[0], spec.nics[0]
        xml = f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
          <os><type machine='pc'>hvm</type></os><description>kept</description><features><acpi/></features><devices>
          <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{root.source}'/>
          <target dev='vda' bus='virtio'/></disk><disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>
          <interface type='bridge'><mac address='{nic.mac}'/><source bridge='br0'/><model type='virtio'/></interface>
          <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""
        await pair.here.host.transport.run(["virsh", "-q", "define", "/dev/stdin"], stdin=xml.encode())
        await pair.here.host.transport.run(["virsh", "-q", "start", name])
        await pair.here.ready(name)
        return name, spec

    async def test_a_whole_life(self, pair: Pair) -> None:
        (name, spec), kvm = await self.foreign(pair), pair.source
        found = await kvm.describe(name)
        assert (found.power, found.cpu, found.memory_mib, found.problems) == (PowerState.RUNNING, 1, 128, ())
        assert [(disk.name, disk.source) for disk in found.disks] == [("root", spec.disks[0].source)]
        assert [(nic.mac, nic.bridge) for nic in found.nics] == [(spec.nics[0].mac, "br0")]
        with pytest.raises(Conflict, match="not made by rackflow"):
            await kvm.define(replace(spec, name=name))
        assert await kvm.adopt(name, spec.id) is True
        assert spec.id in [one.instance_id for one in await kvm.instances()]
        assert (await kvm.describe(name)).problems != ()
        wanted = replace(spec, name=name, disks=found.disks, nics=found.nics)
        assert [await kvm.define(wanted), await kvm.define(wanted)] == [True, False]
        assert await kvm.reconfigure(wanted) is False
        more = await pair.with_disk(wanted)
        assert await kvm.reconfigure(more) is True
        assert await kvm.reconfigure(more) is False
        assert await kvm.stop(name, grace_s=0) is True
        larger = replace(more, cpu=2, memory_mib=160)
        assert await kvm.define(larger) is True
        assert await kvm.start(name) is True
        seen = await kvm.observe(name)
        assert (seen.cpus, seen.memory_mib, len(seen.disks)) == (2, 160, 3)
        assert "<description>kept" in pair.here.lab.run("h1", f"virsh dumpxml {name}")
        await kvm.stop(name, grace_s=0)
        assert await kvm.disown(name) is True
        with pytest.raises(Conflict):
            await kvm.undefine(name)
        assert await kvm.adopt(name, spec.id) is True
        assert await kvm.undefine(name) is True

    async def test_what_rackflow_made_is_not_disowned(self, pair: Pair) -> None:
        spec = await pair.new()
        await pair.source.define(spec)
        with pytest.raises(Conflict, match="made by rackflow"):
            await pair.source.disown(spec.name)
