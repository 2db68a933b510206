"""Which drivers there are: rackflow's own, and what packages bring."""

from __future__ import annotations

import asyncio
import sys
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
    monkeypatch.delitem(sys.modules, "acme_driver_of_a_test", raising=False)  # as another test wrote it
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
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


HALF = """
from dataclasses import replace
from drivers import fake_host
from drivers.hypervisor.base import Hypervisor
CONTRACT = 1

class Half(Hypervisor):
    async def observe(self, name): ...

class Nothing:
    pass

async def connect(endpoint, settings):
    return replace(await fake_host.connect(endpoint, settings), hypervisor=Half(), network=Nothing())
"""
MISFITS = {
    "async def connect(endpoint, settings): ...": "has no CONTRACT",
    "CONTRACT = 2\nasync def connect(endpoint, settings): ...": "written for contract 2, and this rackflow has 1",
    "CONTRACT = 1\nconnect = print": "no `async def connect",
    "CONTRACT = 1\nasync def connect(endpoint, settings): return 7": r"lacks a Host \(connect returned int\)",
    "CONTRACT = 1\nasync def connect(endpoint, settings): return 1 / 0": "broke as it connected: ZeroDivisionError",
    "raise SystemExit(3)": "cannot be loaded: SystemExit: 3",
    HALF: r"lacks hypervisor.prepare, .*hypervisor.close, network.bridges",
}


@pytest.mark.parametrize("text", MISFITS, ids=lambda text: MISFITS[text][:20].replace(" ", "-"))
async def test_a_driver_that_does_not_fit_is_told_what_is_wrong(brought: Path, text: str) -> None:
    await asyncio.to_thread(brought.write_text, text)
    with pytest.raises(HostFault, match=MISFITS[text]) as caught:
        await connect("acme", Endpoint("h1", "192.0.2.1"), DriverSettings())
    assert "observe" not in str(caught.value)


def test_a_damaged_package_troubles_no_driver_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, line in (("torn", "no entry point"), ("whole", "whole = whole_driver"), ("loud", "Loud = loud_driver")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[rackflow.drivers]\n{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = registry.drivers.__wrapped__()
    assert set(registry.OWN) | {"whole", "Loud"} <= set(found)
    assert found["whole"] == registry.Driver("whole", "whole_driver", "whole 1.0")
    assert "no host can name it" in found["Loud"].error


def test_own_transports_are_told(brought: Path) -> None:
    assert [name for name in registry.OWN if registry.has_own_transport(name)] == ["esxi", "fake"]
    assert not registry.has_own_transport("")
    brought.write_text("CONTRACT = 1\nOWN_TRANSPORT = True\nasync def connect(endpoint, settings): ...\n")
    assert registry.has_own_transport("acme")
