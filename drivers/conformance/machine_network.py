"""Bridges and NICs in any order, against a model of a host's networks."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from core.errors import Conflict, HostFault
from drivers.conformance.cases import raises
from drivers.conformance.explore import FAULTS, Do, How, Machine
from drivers.conformance.network import MAC, is_left
from drivers.conformance.rigs import NetworkRig
from drivers.network.base import Bridge, NetworkSpec, NicSpec


class NetworkMachine(Machine):
    """Ensure what is there, what is not, and what must not be touched. A bridge once made stays for all examples."""

    def __init__(self, do: Do, rig: NetworkRig) -> None:
        super().__init__(do, rig.disturb, rig.effort)
        self.rig, self.network = rig, rig.network
        self.before: dict[str, Bridge] = {}

    def _bridges(self) -> dict[str, Bridge]:
        return {bridge.name: bridge for bridge in self.do(self.network.bridges())}

    @initialize()
    def look(self) -> None:
        self.before = self._bridges()
        self.made = self.rig.free in self.before

    @rule(create=st.booleans(), how=FAULTS)
    def ensure_what_is_there(self, create: bool, how: How) -> None:
        spec = NetworkSpec("lan", "bridge", self.rig.there, create=create)
        self.change(f"ensure {self.rig.there}", lambda: self.network.ensure(spec), False, how)

    @rule(how=FAULTS)
    def ensure_a_new_one(self, how: How) -> None:
        spec = NetworkSpec("new", "bridge", self.rig.free, self.rig.cidr, create=True)
        self.change(f"ensure {self.rig.free}", lambda: self.network.ensure(spec), not self.made, how)
        self.made = True

    @rule()
    def ensure_without_asking_for_a_new_one(self) -> None:
        spec = NetworkSpec("new", "bridge", self.rig.free)
        self.note(f"ensure {self.rig.free} without create")
        if self.made:
            assert self.do(self.network.ensure(spec)) is False
            return
        with raises(HostFault):
            self.do(self.network.ensure(spec))

    @rule()
    def touch_the_management_interface(self) -> None:
        self.note(f"ensure {self.rig.management}")
        with raises(Conflict):
            self.do(self.network.ensure(NetworkSpec("bad", "bridge", self.rig.management, "10.99.0.1/24", create=True)))

    @rule(index=st.integers(0, 3))
    def a_nic(self, index: int) -> None:
        self.note(f"ensure_nic {index}")
        network = NetworkSpec("lan", "bridge", self.rig.there)
        found = self.do(self.network.ensure_nic(network, NicSpec(index, MAC)))
        assert (found.name, found.mac, found.bridge) == (f"eth{index}", MAC, self.rig.there)

    @invariant()
    def all_else_stays(self) -> None:
        now = self._bridges()
        assert (self.rig.free in now) == self.made
        for name, bridge in self.before.items():
            assert is_left(bridge, now.get(name)), f"{name} was {bridge} and is {now.get(name)}"
