"""A vSphere whose API is reached by an SSH server only: the simulator behind asyncssh's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from core.errors import CredentialRejected, HostFault, RackflowError, Unreachable
from core.ids import new_id
from daemon.driver_hosts import small_image
from drivers.esxi_host import connect
from drivers.hosts import Host
from drivers.identity import show
from drivers.storage.base import SeedSpec, VolumeSpec
from drivers.transport.base import Endpoint, Way
from drivers.transport.vsphere import VsphereTransport
from tests.integration.sshd import sshd
from tests.vcsim import HOSTS, SETTINGS, Vcsim, vcsim

STORE = "/vmfs/volumes/LocalDS_0/rackflow"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vcsim"), place=HOSTS[0]) as found:
        yield found


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with sshd(tmp_path) as found:
        yield found


def way_of(server: Endpoint) -> Way:
    assert server.key_file is not None
    fingerprint = asyncssh.import_public_key(server.host_key).get_fingerprint()
    return Way(server.address, server.port, server.user, server.key_file, fingerprint)


@pytest.fixture
async def host(sim: Vcsim, server: Endpoint) -> AsyncIterator[Host]:
    found = await connect(replace(sim.endpoint(), way=way_of(server)), SETTINGS)
    yield found
    await found.close()


def transport(host: Host) -> VsphereTransport:
    assert isinstance(host.transport, VsphereTransport)
    return host.transport


async def test_calls_and_files_go_through_it(sim: Vcsim, host: Host, tmp_path: Path) -> None:
    assert transport(host).reached != (transport(host).endpoint.address, transport(host).endpoint.port)
    assert (await host.hypervisor.capabilities()).driver == "esxi"
    storage, image = host.storage(STORE), small_image(tmp_path)
    await storage.prepare()
    await storage.ensure_image(image)  # by an NFC lease
    assert image.sha256 in await storage.images()
    assert (await storage.ensure_volume(VolumeSpec(new_id(), "root", 0, image.sha256))).source
    seed = SeedSpec(new_id(), "m", "u", "n")
    assert (await storage.ensure_seed(seed)).source  # by the datastore's HTTPS


async def test_its_certificate_is_seen_through_it(sim: Vcsim, server: Endpoint) -> None:
    shown = await show("esxi", "127.0.0.1", sim.port, way_of(server))
    assert shown.fingerprint == f"SHA256:{sim.thumbprint}"


async def test_another_host_key_gets_no_password(sim: Vcsim, server: Endpoint) -> None:
    wrong = replace(way_of(server), fingerprint="SHA256:other")
    before = sim.calls()["Login"]
    with pytest.raises(CredentialRejected, match="SSH host key"):
        await connect(replace(sim.endpoint(), way=wrong), SETTINGS)
    assert sim.calls()["Login"] == before


async def test_what_it_does_not_lead_to_is_told(sim: Vcsim, server: Endpoint) -> None:
    for endpoint in (replace(sim.endpoint(), port=1), replace(sim.endpoint(), address="192.0.2.7", port=1)):
        settings = replace(SETTINGS, connect_timeout_s=2.0)
        with pytest.raises((HostFault, Unreachable)) as told:
            await connect(replace(endpoint, way=way_of(server)), settings)
        if isinstance(told.value, HostFault):
            assert "AllowTcpForwarding" in told.value.fix


async def test_without_ssh_there_is_no_session(sim: Vcsim, server: Endpoint, host: Host) -> None:
    """The pool opens another one, with the next step."""
    tunnel = transport(host)._tunnel
    assert tunnel is not None
    await tunnel.close()
    assert not transport(host).is_alive()
    with pytest.raises(RackflowError):
        await asyncio.wait_for(host.hypervisor.instances(), 30)
    again = await connect(replace(sim.endpoint(), way=way_of(server)), SETTINGS)
    assert isinstance(await again.hypervisor.instances(), list)
    await again.close()
