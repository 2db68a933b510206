"""What goes wrong on KVM hosts, and what is said of it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import CredentialRejected, HostFault, Invalid, NotFound, RackflowError, Unreachable
from core.settings import DriverSettings
from core.states import PowerState
from drivers.hypervisor import kvm as kvm_module
from drivers.hypervisor.accelerator import _ROM_FILE, PROVED, probe_argv, rom
from drivers.hypervisor.base import InstanceSpec
from drivers.network.base import NicSpec
from drivers.pool import HostPool
from drivers.storage.base import VolumeSpec
from drivers.transport.base import Endpoint, Transport
from drivers.transport.ssh import connect, scan_host_key
from tests.labs import Lab
from tests.live.kvm import LAN, KvmHost, kvm_host, tiny

QUICK = DriverSettings(
    connect_timeout_s=3, command_timeout_s=3, keepalive_interval_s=0.5, keepalive_count=2
)
SERVER_OF_US = "ps -o ppid= -p $PPID"  # the sshd process of this connection: parent of `timeout`, our parent


@pytest.fixture
async def kvm(lab: Lab) -> AsyncIterator[KvmHost]:
    async with kvm_host(lab, "h2", QUICK) as found:
        yield found


async def signal(kvm: KvmHost, name: str, pid: str) -> None:
    kvm.lab.run("h2", f"kill -{name} {pid}")


async def pid_of(kvm: KvmHost, spec: InstanceSpec) -> str:
    return (await kvm.host.transport.run(["cat", f"/run/libvirt/qemu/{spec.name}.pid"])).stdout.strip()


async def running(kvm: KvmHost) -> InstanceSpec:
    spec = await kvm.new()
    await kvm.hypervisor.define(spec)
    await kvm.hypervisor.start(spec.name)
    return spec


class TestConnecting:
    async def test_the_scanned_host_key_is_the_pinned_one(self, lab: Lab) -> None:
        endpoint = lab.endpoint("h1")
        found = await scan_host_key(endpoint.address)
        assert found.public == endpoint.host_key
        assert found.fingerprint.startswith("SHA256:")

    async def refused(self, endpoint: Endpoint, kind: type[RackflowError]) -> RackflowError:
        with pytest.raises(kind) as caught:
            await connect(endpoint, QUICK)
        assert caught.value.subject == f"host/{endpoint.name}"
        return caught.value

    async def test_a_changed_host_key(self, lab: Lab) -> None:
        changed = replace(lab.endpoint("h1"), host_key=lab.endpoint("h2").host_key)
        error = await self.refused(changed, CredentialRejected)
        assert error.evidence["offered"] == (await scan_host_key(changed.address)).fingerprint
        assert "reinstalled" in error.fix

    async def test_no_pinned_host_key(self, lab: Lab) -> None:
        await self.refused(replace(lab.endpoint("h1"), host_key=""), CredentialRejected)

    async def test_a_wrong_key(self, lab: Lab, tmp_path: Path) -> None:
        proc = await asyncio.create_subprocess_exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k")
        await proc.wait()
        error = await self.refused(replace(lab.endpoint("h1"), key_file=tmp_path / "k"), CredentialRejected)
        assert "authorized_keys" in error.fix
        await self.refused(replace(lab.endpoint("h1"), key_file=tmp_path / "none"), CredentialRejected)

    async def test_nobody_answers(self, lab: Lab) -> None:
        begin = time.monotonic()
        await self.refused(replace(lab.endpoint("h1"), address="198.18.16.250"), Unreachable)
        await self.refused(replace(lab.endpoint("h1"), port=23), Unreachable)
        await self.refused(replace(lab.endpoint("h1"), address="no-such-host.invalid"), Unreachable)
        assert time.monotonic() - begin < 10

    async def test_all_who_wait_for_a_dead_host_wait_once(self, lab: Lab) -> None:
        pool, begin = HostPool(QUICK), time.monotonic()
        dead = replace(lab.endpoint("h1"), address="198.18.16.250")
        found = await asyncio.gather(*(pool.get("kvm", dead) for _ in range(8)), return_exceptions=True)
        assert {type(one) for one in found} == {Unreachable}
        assert time.monotonic() - begin < 5

    async def test_the_pool_shares_and_renews(self, lab: Lab) -> None:
        pool = HostPool(QUICK)
        first = await asyncio.gather(*(pool.get("kvm", lab.endpoint("h1")) for _ in range(5)))
        assert len({id(host) for host in first}) == 1
        assert await pool.transport(lab.endpoint("h1")) is first[0].transport
        await first[0].transport.close()
        second = await pool.get("kvm", lab.endpoint("h1"))
        assert second is not first[0]
        assert (await second.transport.run(["true"])).exit_code == 0
        await pool.close()


class TestLosingTheConnection:
    async def test_sshd_is_killed_in_the_middle_of_a_command(self, kvm: KvmHost) -> None:
        server = (await kvm.host.transport.run(["sh", "-c", SERVER_OF_US])).stdout.strip()
        under_way = asyncio.ensure_future(kvm.host.transport.run(["sleep", "30"]))
        await asyncio.sleep(0.3)
        await signal(kvm, "KILL", server)
        with pytest.raises(Unreachable):
            await asyncio.wait_for(under_way, 3)
        assert not kvm.host.transport.is_alive()

    async def test_a_host_that_hangs_is_found_by_keepalive(self, kvm: KvmHost) -> None:
        server = (await kvm.host.transport.run(["sh", "-c", SERVER_OF_US])).stdout.strip()
        calls = [
            asyncio.ensure_future(kvm.host.transport.run(["sleep", "30"])),
            asyncio.ensure_future(kvm.hypervisor.instances()),
        ]
        await asyncio.sleep(0.2)
        await signal(kvm, "STOP", server)
        begin = time.monotonic()
        calls.append(asyncio.ensure_future(kvm.hypervisor.capacity()))
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(found[0], Unreachable)
        assert isinstance(found[2], Unreachable)
        assert time.monotonic() - begin < 6
        await signal(kvm, "KILL", server)

    async def test_calls_killed_while_they_open_leave_no_session_behind(self, kvm: KvmHost) -> None:
        run = kvm.host.transport.run
        for number in range(40):
            task = asyncio.ensure_future(run(["sleep", "32.1"]))
            await asyncio.sleep(number * 0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        begin = time.monotonic()
        await asyncio.gather(*(run(["sleep", "0.2"]) for _ in range(8)))
        assert time.monotonic() - begin < 2
        await asyncio.sleep(1)
        assert (await run(["pgrep", "-f", "^sleep 32.1"], check=False)).stdout == ""

    async def test_a_put_that_was_cut_goes_on(self, kvm: KvmHost, tmp_path: Path) -> None:
        local, target = tmp_path / "big", "/var/lib/big"
        local.write_bytes(hashlib.sha256(b"x").digest() * 2**20)  # 32 MiB
        server = (await kvm.host.transport.run(["sh", "-c", SERVER_OF_US])).stdout.strip()

        def cut(done: int, total: int) -> None:
            if done > total // 2:
                kvm.lab.run("h2", f"kill -KILL {server}", check=False)

        with pytest.raises(Unreachable):
            await kvm.host.transport.put(local, target, resume=True, progress=cut)
        again = await connect(kvm.lab.endpoint("h2"), QUICK)
        steps: list[int] = []
        await again.put(local, target, resume=True, progress=lambda done, _: steps.append(done))
        assert steps[0] > 2**20, "it began anew"
        digest = (await again.run(["sha256sum", target])).stdout.split()[0]
        assert digest == hashlib.sha256(local.read_bytes()).hexdigest()
        await again.run(["rm", target])
        await again.close()


class TestPowerLoss:
    async def test_a_host_that_dies_and_comes_back(self, lab: Lab) -> None:
        pool = HostPool(QUICK)
        async with kvm_host(lab, "h2", QUICK) as kvm:
            spec = await running(kvm)
            before = await pool.get("kvm", lab.endpoint("h2"))
            under_way = asyncio.ensure_future(before.transport.run(["sleep", "30"]))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(lab.call, "crash", "h2")
            with pytest.raises(Unreachable):
                await asyncio.wait_for(under_way, 10)
            with pytest.raises(Unreachable):
                await before.hypervisor.observe(spec.name)
            with pytest.raises(Unreachable):
                await pool.get("kvm", lab.endpoint("h2"))
            await asyncio.to_thread(lab.call, "start", "h2")
            after = await pool.get("kvm", lab.endpoint("h2"))
            assert (await after.hypervisor.observe(spec.name)).power is PowerState.STOPPED
            assert await after.hypervisor.define(spec) is False, "the definition was lost"
            assert await after.hypervisor.start(spec.name) is True
        await pool.close()


class TestNotRoot:
    @pytest.fixture
    async def rack(self, lab: Lab) -> AsyncIterator[Transport]:
        transport = await connect(lab.endpoint("h2", user="rack"), QUICK)
        yield transport
        await transport.close()

    async def test_sudo(self, rack: Transport) -> None:
        assert (await rack.run(["id", "-un"])).stdout == "rack\n"
        assert (await rack.run(["id", "-un"], sudo=True)).stdout == "root\n"
        await rack.put(b"x", "/root/by-rack", mode=0o600, sudo=True)
        assert await rack.get("/root/by-rack", sudo=True) == b"x"
        with pytest.raises(HostFault):
            await rack.get("/root/by-rack")
        await rack.run(["rm", "/root/by-rack"], sudo=True)

    async def test_a_command_under_sudo_ends_at_its_deadline(self, rack: Transport) -> None:
        with pytest.raises(Unreachable):
            await rack.run(["sleep", "31.4"], sudo=True, timeout_s=0.5)
        assert (await rack.run(["pgrep", "-f", "^sleep 31.4"], check=False)).exit_code == 1


class TestLibvirtd:
    async def test_a_host_without_it(self, lab: Lab) -> None:
        async with kvm_host(lab, "h3", replace(QUICK, domain_type="qemu")) as other:
            with pytest.raises(Unreachable, match="libvirtd does not run there"):
                await other.hypervisor.prepare()

    async def test_a_missing_bridge(self, kvm: KvmHost) -> None:
        spec = await kvm.new()
        nic = replace(spec.nics[0], bridge="br77")
        with pytest.raises(HostFault, match="no bridge br77"):
            await kvm.host.network.ensure_nic(replace(LAN, bridge="br77"), NicSpec(0, nic.mac))
        await kvm.hypervisor.define(replace(spec, nics=(nic,)))
        with pytest.raises(HostFault, match="br77"):
            await kvm.hypervisor.start(spec.name)

    async def test_it_hangs_and_comes_back(self, kvm: KvmHost) -> None:
        await kvm.hypervisor.prepare()
        daemon = (await kvm.host.transport.run(["pgrep", "-xo", "libvirtd"])).stdout.strip()
        await signal(kvm, "STOP", daemon)
        try:
            begin = time.monotonic()
            found = await asyncio.gather(*(kvm.hypervisor.capacity() for _ in range(8)), return_exceptions=True)
            assert {type(one) for one in found} == {Unreachable}
            assert "did not answer within 3 s" in str(found[0])
            assert time.monotonic() - begin < 10  # two rounds of four threads
            assert (await kvm.host.transport.run(["true"])).exit_code == 0
        finally:
            await signal(kvm, "CONT", daemon)
        assert (await kvm.hypervisor.capacity()).cpus > 0


async def cut_power(kvm: KvmHost, name: str) -> None:
    """Stop a VM, and try again as tasks do: a call that hung cuts the connection when it meets its deadline."""
    for _ in range(20):
        with suppress(Unreachable):
            await kvm.hypervisor.stop(name, grace_s=0)
            assert (await kvm.hypervisor.observe(name)).power is PowerState.STOPPED
            return
        await asyncio.sleep(0.5)
    pytest.fail(f"{name} cannot be stopped")


class TestQemu:
    async def test_a_killed_one_is_seen_as_crashed_and_starts_again(self, kvm: KvmHost) -> None:
        spec = await running(kvm)
        await signal(kvm, "KILL", await pid_of(kvm, spec))
        await asyncio.sleep(0.5)
        seen = await kvm.hypervisor.observe(spec.name)
        assert (seen.power, seen.reason) == (PowerState.CRASHED, "its QEMU process died")
        assert await kvm.hypervisor.start(spec.name) is True
        assert (await kvm.hypervisor.observe(spec.name)).power is PowerState.RUNNING

    async def test_one_that_hangs_hides_no_other(self, kvm: KvmHost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kvm_module, "_SWEEP_S", 2.0)
        sick, well = await running(kvm), await running(kvm)
        pid = await pid_of(kvm, sick)
        await signal(kvm, "STOP", pid)
        try:
            seen = {one.name: one for one in await kvm.hypervisor.instances()}
            assert seen[well.name].power is PowerState.RUNNING
            assert sick.name in seen
            await cut_power(kvm, well.name)
        finally:
            await signal(kvm, "CONT", pid)
        await cut_power(kvm, sick.name)

    async def test_a_guest_that_does_not_hear_is_cut_off(self, kvm: KvmHost) -> None:
        spec = await running(kvm)  # still in its firmware
        begin = time.monotonic()
        assert await kvm.hypervisor.stop(spec.name, grace_s=1.5) is True
        assert 1.5 <= time.monotonic() - begin < 6
        assert (await kvm.hypervisor.observe(spec.name)).power is PowerState.STOPPED

    async def test_a_guest_that_hears_goes_down_by_itself(self, kvm: KvmHost) -> None:
        spec = await running(kvm)
        await kvm.ready(spec.name)
        begin = time.monotonic()
        assert await kvm.hypervisor.stop(spec.name, grace_s=60) is True
        assert time.monotonic() - begin < 45
        assert (await kvm.hypervisor.observe(spec.name)).power is PowerState.STOPPED

    async def test_the_probes_kernel_runs(self, kvm: KvmHost) -> None:
        """Under emulation, which always works: what is measured under KVM is KVM, not the probe."""
        await kvm.host.transport.put(rom(), _ROM_FILE)
        tried = await kvm.host.transport.run(probe_argv("tcg", "qemu64"), check=False)
        assert tried.exit_code == PROVED, tried.stderr


class TestDatastore:
    @pytest.fixture
    async def small(self, kvm: KvmHost) -> AsyncIterator[str]:
        """A file system of 80 MiB: less than the image and what is left free."""
        path = "/var/lib/rackflow-test/small"
        mount = f"mkdir -p {path} && mount -t tmpfs -o size=80m none {path}"
        kvm.lab.run("h2", mount)
        yield path
        kvm.lab.run("h2", f"umount {path}; rmdir {path}")

    async def test_a_full_one_says_so_before_copying(self, kvm: KvmHost, small: str) -> None:
        storage = kvm.host.storage(small)
        await storage.prepare()
        with pytest.raises(HostFault, match="is full") as caught:
            await storage.ensure_image(tiny(kvm.lab))
        assert caught.value.evidence["needed_bytes"] > caught.value.evidence["free_bytes"]
        assert kvm.lab.run("h2", f"ls -A {small}/images").split() == []

    async def test_one_that_fills_up_while_copying(self, kvm: KvmHost, small: str, tmp_path: Path) -> None:
        local = tmp_path / "big"
        local.write_bytes(bytes(100 * 2**20))
        with pytest.raises(HostFault, match="No space left on device"):
            await kvm.host.transport.put(local, f"{small}/big")
        assert kvm.lab.run("h2", f"ls -A {small}").split() == []

    async def test_a_truncated_file_in_the_store(self, kvm: KvmHost, tmp_path: Path) -> None:
        image, cut = tiny(kvm.lab), tmp_path / "cut.qcow2"
        cut.write_bytes(image.path.read_bytes()[:-4096])
        storage = kvm.host.storage("/var/lib/rackflow-test/cut")
        await storage.prepare()
        with pytest.raises(Invalid, match="other content"):
            await storage.ensure_image(replace(image, path=cut))
        assert await storage.images() == []
        assert kvm.lab.run("h2", "ls -A /var/lib/rackflow-test/cut/images").split() == []

    async def test_a_file_that_is_gone_from_the_store(self, kvm: KvmHost, tmp_path: Path) -> None:
        storage = kvm.host.storage("/var/lib/rackflow-test/cut")
        await storage.prepare()
        with pytest.raises(NotFound, match="there is no file"):
            await storage.ensure_image(replace(tiny(kvm.lab), path=tmp_path / "none"))

    async def test_a_disk_smaller_than_its_image(self, kvm: KvmHost) -> None:
        image = tiny(kvm.lab)
        storage = kvm.host.storage("/var/lib/rackflow-test/vms")
        await storage.prepare()
        await storage.ensure_image(image)
        with pytest.raises(Invalid, match="smaller than its image"):
            await storage.ensure_volume(VolumeSpec("0" * 20, "root", 8, image.sha256, "qcow2"))
        assert "0" * 20 not in await storage.volumes()
