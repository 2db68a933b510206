"""An address that is good on one host only: what changes hosts is defined with the one that it has there."""

from __future__ import annotations

from typing import Any

import pytest

from blueprints.network import NetworkSpec
from control import networks
from core.errors import Unsupported
from core.ids import on_host
from core.states import InstanceState, OperationState, Verb
from drivers.fake_world import world
from tests.integration.line import Line
from tests.integration.pump import Pump, at_once, deploy, look, with_bmcs, with_san


@pytest.fixture
def boxes(line: Line) -> None:
    """Let each host's own bridge give addresses out of its own subnet."""
    spec = NetworkSpec.model_validate({"name": "boxes", "bridge": "lxcbr0", "addressing": "host"})
    line.store.write_now(lambda c: networks.ensure(c, line.admin, spec))


def addresses(host: str, instance_id: str) -> list[str]:
    """Return the addresses that it is defined with on a host."""
    spec = world.hosts[host].instances[on_host(instance_id)].spec
    assert spec is not None
    return [nic.address.split("/")[0] for nic in spec.nics]


async def off(line: Line, **more: Any) -> dict[str, Any]:
    await look(line)  # it sees the bridges' subnets
    (web,) = await deploy(line, "web", nics=[{"network": "boxes"}], **more)
    await line.run(Verb.POWEROFF, {"instances": ["web"]})
    assert addresses(web["host"], web["id"]) == web["addresses"]
    return web


@pytest.mark.usefixtures("boxes")
async def test_what_is_off_migrates_with_its_new_address(line: Line) -> None:
    web = await off(line)
    (op,) = await line.run(Verb.MIGRATE, {"instances": ["web"]})
    assert op.state is OperationState.DONE, op.error
    moved = line.instance("web")
    assert (moved["state"], moved["host"] != web["host"]) == (InstanceState.OFF, True)
    assert moved["addresses"] != web["addresses"]
    assert addresses(moved["host"], web["id"]) == moved["addresses"]


@pytest.mark.usefixtures("boxes")
async def test_what_is_off_comes_back_with_the_address_that_it_has_then(line: Line) -> None:
    web = await off(line)
    defined: list[str] = []

    def second(host: str, verb: str, phase: str) -> None:
        if (verb, phase) == ("hypervisor.define", "before"):
            defined.append(host)
            if len(defined) == 2:  # the first one was without the address
                world.fail(host, verb, Unsupported("no such address", "instance/web"))

    world.on_call = second
    (op,) = await line.run(Verb.MIGRATE, {"instances": ["web"]})
    assert op.state is OperationState.COMPENSATED, (op.state, op.error)
    found = line.instance("web")
    assert (found["state"], found["host"]) == (InstanceState.OFF, web["host"])
    assert addresses(web["host"], web["id"]) == found["addresses"]


@pytest.mark.usefixtures("boxes")
async def test_what_is_off_fails_over_with_its_new_address(line: Line) -> None:
    await with_bmcs(line)
    await with_san(line)
    at_once(line)
    web = await off(line, requirements={"datastore": "san"})
    world.crash(web["host"])
    await look(line, 2)
    pump = Pump(line)
    await pump.rest()
    moved = line.instance("web")
    assert (moved["state"], moved["host"] != web["host"]) == (InstanceState.OFF, True)
    assert addresses(moved["host"], web["id"]) == moved["addresses"] != web["addresses"]
    await pump.stop()
