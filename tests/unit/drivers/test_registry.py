"""Which drivers there are: rackflow's own, and what packages bring."""

from __future__ import annotations

import asyncio
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from core.errors import HostFault, Invalid
from core.settings import DriverSettings
from drivers import registry
from drivers.hosts import connect
from drivers.transport.base import Endpoint


def point(name: str, module: str) -> EntryPoint:
    return EntryPoint(name, module, registry.GROUP)


def test_what_packages_bring_stands_behind_rackflows_own() -> None:
    found = registry.merged([point("nspawn", "acme.nspawn"), point("kvm", "acme.kvm")])
    assert list(found)[: len(registry.OWN)] == list(registry.OWN)
    assert (found["nspawn"].module, found["nspawn"].error) == ("acme.nspawn", "")
    assert found["kvm"].module == registry.OWN["kvm"]
    assert "rackflow's own" in found["kvm (unknown)"].error


def test_a_name_that_two_bring_is_nobodys() -> None:
    one, other = point("nspawn", "acme.nspawn"), point("nspawn", "other.nspawn")
    assert "both" in registry.merged([one, other])["nspawn"].error
    assert registry.merged([one, one])["nspawn"].error == ""


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder on the path; acme.py in it is brought as the driver acme."""
    monkeypatch.syspath_prepend(tmp_path)
    known = registry.merged([point("acme", "acme_driver_of_a_test")])
    monkeypatch.setattr(registry, "drivers", lambda: known)
    return tmp_path / "acme_driver_of_a_test.py"


async def test_a_driver_that_cannot_be_loaded_holds_its_hosts_and_no_others(brought: Path) -> None:
    end = Endpoint("h1", "192.0.2.1")
    with pytest.raises(HostFault, match="ModuleNotFoundError"):
        await connect("acme", end, DriverSettings())
    await asyncio.to_thread(brought.write_text, "raise OSError('no licence')\n")
    with pytest.raises(HostFault, match="no licence") as caught:
        await connect("acme", end, DriverSettings())
    assert "reinstall" in caught.value.fix
    assert (await connect("fake", end, DriverSettings())).kind == "fake"
    with pytest.raises(Invalid, match="no driver 'other'"):
        await connect("other", end, DriverSettings())


def test_own_transports_are_told(brought: Path) -> None:
    assert [name for name in registry.OWN if registry.has_own_transport(name)] == ["esxi", "fake"]
    assert not registry.has_own_transport("")
    brought.write_text("OWN_TRANSPORT = True\nasync def connect(endpoint, settings): ...\n")
    assert registry.has_own_transport("acme")
