"""What a killed call leaves on a host is taken away by the next one, also where that finds its work done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import libvirt
import pytest

from core.ids import new_id, on_host
from core.settings import DriverSettings
from drivers.carrier import Parcel
from drivers.hypervisor.kvm import KvmHypervisor
from drivers.hypervisor.lxd_api import LxdApi
from drivers.hypervisor.lxd_carrier import LxdCarrier
from drivers.hypervisor.lxd_config import ID_KEY, PARCEL_KEY
from drivers.hypervisor.lxd_copies import spool
from drivers.hypervisor.lxd_passing import passing_name
from drivers.hypervisor.lxd_scripts import CLEAR
from tests.unit.drivers.scripted import Answer, Scripted

SOCKET = "/var/lib/lxd/unix.socket"


class LxdWorld:
    """LXD's instances and images by alias, as its API shows and changes them."""

    def __init__(self, *instances: dict[str, Any]) -> None:
        self.instances = {one["name"]: one for one in instances}
        self.aliases: dict[str, str] = {}

    async def get(self, *path: str, subject: str = "", recursion: int = 0) -> Any:
        if path == ("operations",):
            return {}
        assert path == ("instances",)
        return list(self.instances.values()) if recursion else [f"/1.0/instances/{name}" for name in self.instances]

    async def find(self, *path: str, subject: str = "", **_: int) -> Any | None:
        if path[:2] == ("images", "aliases"):
            return {"target": self.aliases[path[2]]} if path[2] in self.aliases else None
        assert path[0] == "instances"
        return self.instances.get(path[1])

    async def change(self, method: str, *path: str, json: dict[str, Any] | None = None, **_: object) -> Any:
        if method == "delete" and path[0] == "instances":
            return self.instances.pop(path[1])
        if method == "delete":
            self.aliases = {alias: image for alias, image in self.aliases.items() if image != path[1]}
            return None
        assert (method, json is not None) == ("post", True)
        body = cast(dict[str, Any], json)
        if path == ("instances",):
            self.instances[body["name"]] = body
            return None
        self.aliases[body["aliases"][0]["name"]] = "f1"
        return {"metadata": {"fingerprint": "f1"}}


def container(instance_id: str, **config: str) -> dict[str, Any]:
    return {
        "name": on_host(instance_id), "config": {ID_KEY: instance_id, **config}, "devices": {}, "status": "Stopped",
        "type": "container",
    }  # fmt: skip


def lxd(world: LxdWorld, answer: Callable[[Sequence[str]], Answer]) -> tuple[LxdCarrier, Scripted]:
    transport = Scripted(answer)
    return LxdCarrier(transport, cast(LxdApi, world), SOCKET), transport


async def unread() -> AsyncIterator[bytes]:
    pytest.fail("what is there already is not read")
    yield b""


async def test_an_archive_that_was_taken_in_goes_when_its_container_is_found_there() -> None:
    instance_id = new_id()
    parcel = Parcel("instance.tar.gz", 9, "0" * 64)
    left = {"name": passing_name(instance_id, "import2"), "config": {}, "devices": {}}
    world = LxdWorld(container(instance_id, **{PARCEL_KEY: parcel.sha256}), left)
    carrier, transport = lxd(world, lambda _: (0, "changed\n", ""))
    assert await carrier.write(instance_id, parcel, unread()) is False
    assert [argv[2:] for argv in transport.asked] == [(CLEAR, "rackflow", spool(instance_id))]
    assert list(world.instances) == [on_host(instance_id)]


@pytest.mark.parametrize("done", [True, False])
async def test_the_copy_of_which_an_image_was_made_goes_also_when_the_image_is_there(done: bool) -> None:
    instance_id = new_id()
    copy = passing_name(instance_id, "copy")
    world = LxdWorld(container(instance_id), {"name": copy, "config": {}, "devices": {}})
    world.aliases = {copy: "f0", "other": "f2"}
    lxd_host, _ = lxd(world, lambda argv: (int(argv[0] == "test" and not done), "", ""))
    assert await lxd_host.save_image(on_host(instance_id), "/var/lib/x/op.tar") is not done
    assert list(world.instances) == [on_host(instance_id)]
    assert world.aliases == {"other": "f2"}


class NoDomains:
    """A libvirt connection to a host without domains."""

    def lookupByName(self, name: str) -> None:
        error = libvirt.libvirtError(f"no domain {name}")
        error.err = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, "no domain", 2, None, None, None, -1, -1)
        raise error


async def test_logs_of_a_domain_go_also_when_it_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    transport, name = Scripted(lambda _: (0, "", "")), on_host(new_id())
    host = KvmHypervisor(transport, DriverSettings(domain_type="qemu"))

    async def call(_doing: str, work: Callable[[Any], Any], **_: object) -> Any:
        return work(NoDomains())

    monkeypatch.setattr(host._link, "call", call)
    assert await host.undefine(name) is False
    ((program, *words),) = transport.asked
    assert program == "rm"
    assert {Path(word).name for word in words if name in word} >= {f"{name}.log", f"{name}.log.0"}
