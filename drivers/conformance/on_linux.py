"""Extras of Linux hosts that are reached by SSH: KVM, LXD, Firecracker; datastores are folders and networks bridges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from drivers.conformance.cases import not_reached
from drivers.conformance.disks import DiskTools
from drivers.conformance.extras import Extras
from drivers.conformance.rigs import Effort
from drivers.facts import gather_facts
from drivers.hosts import Host
from drivers.hypervisor.powers import Executes
from drivers.network.bridge import INTERFACES_DIR

GROWING = (("cpu_max", "2"), ("memory_max_mib", "256"))  # twice what the kit gives an instance
SHELL_ON_CONSOLE = "setsid sh -i </dev/console >/dev/console 2>&1 &"
DOMAIN = "<domain type='qemu'><name>{}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
VIRSH = ("virsh", "-q", "-c", "qemu:///system")


async def conformance(host: Host) -> Extras:
    """Return what the shell of the host can do for the kit, as root."""

    async def clear_store(path: str) -> None:
        await host.transport.run(["rm", "-rf", path], sudo=True)

    async def clear_network(bridge: str) -> None:
        await host.transport.run(["ip", "link", "delete", bridge], sudo=True, check=False)
        await host.transport.run(["rm", "-f", f"{INTERFACES_DIR}/rackflow-{bridge}"], sudo=True)

    found = Extras(
        tools=DiskTools(host.transport), clear_store=clear_store, clear_network=clear_network,
        management=(await gather_facts(host.transport)).management_nic,
    )  # fmt: skip
    if host.kind == "firecracker":
        return await _of_microvms(host, found)
    return {"kvm": _of_vms, "lxd": _of_containers}[host.kind](host, found)


async def _of_microvms(host: Host, found: Extras) -> Extras:
    kernels = (await host.hypervisor.capabilities()).kernels
    if not kernels:
        not_reached(f"no kernel is on {host.name}: put one there as docs/firecracker.md says")
    return replace(
        found, options=(("kernel", kernels[0]),), disk_format="raw", overlays=False, moves=(), tools_see_snapshots=False
    )


def _of_vms(host: Host, found: Extras) -> Extras:
    async def take_name(name: str) -> None:
        await host.transport.run([*VIRSH, "define", "/dev/stdin"], stdin=DOMAIN.format(name).encode(), sudo=True)

    async def clear_instance(name: str) -> None:
        for words in (["destroy", name], ["undefine", "--snapshots-metadata", "--checkpoints-metadata", name]):
            await host.transport.run([*VIRSH, *words], sudo=True, check=False)

    return replace(found, take_name=take_name, clear_instance=clear_instance, growing=GROWING)


def _of_containers(host: Host, found: Extras) -> Extras:
    async def lxc(words: Sequence[str], check: bool = True) -> None:
        await host.transport.run(["lxc", *words], sudo=True, check=check)

    async def take_name(name: str) -> None:
        await lxc(["init", "--empty", name, "--storage", "default"])

    async def clear_instance(name: str) -> None:
        await lxc(["delete", "--force", name], check=False)
        await lxc(["storage", "volume", "delete", "default", f"{name}-data1"], check=False)

    async def settle_in(name: str) -> None:
        if isinstance(host.hypervisor, Executes):
            await host.hypervisor.exec(name, ["sh", "-c", SHELL_ON_CONSOLE])

    return replace(
        found, take_name=take_name, clear_instance=clear_instance, settle_in=settle_in, moves=(),
        effort=Effort(2, 12, inside=True),
    )  # fmt: skip
