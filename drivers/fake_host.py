"""A simulated host's drivers, put together."""

from __future__ import annotations

from core.settings import DriverSettings
from drivers.fake_planted import plant
from drivers.fake_world import ANY, world
from drivers.hosts import Host
from drivers.hypervisor.fake import fake_hypervisor
from drivers.network.fake import FakeNetwork
from drivers.storage.fake import FakeStorage
from drivers.transport.base import Endpoint
from drivers.transport.fake import connect as connect_transport

OWN_TRANSPORT = True  # not reached by SSH


async def connect(endpoint: Endpoint, settings: DriverSettings) -> Host:
    """Build the drivers of a simulated host. Raise Unreachable, or what was injected."""
    if settings.simulated_latency_s:
        world.slow(endpoint.name, ANY, settings.simulated_latency_s)
    if settings.simulated_instances and endpoint.name not in world.hosts:
        plant(world.host(endpoint.name), settings.simulated_instances)
    transport = await connect_transport(endpoint, settings)
    hypervisor = fake_hypervisor(transport, world.host(endpoint.name).powers)
    return Host(
        name=endpoint.name, kind="fake", transport=transport, hypervisor=hypervisor,
        storage=lambda path: FakeStorage(transport, path), network=FakeNetwork(transport),
    )
