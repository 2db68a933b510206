"""The stages of a machine's enrollment, in their order, and which of them one machine goes through.

Their work stands in `tasks/machine_stages.py`, by the same names. An operation keeps its stages among its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]  # of a machine, as the record has it


def _always(_: Spec) -> bool:
    return True


def _installs(spec: Spec) -> bool:
    return bool(spec.get("install")) and _becomes_a_host(spec)


def _boots_our_ramdisk(spec: Spec) -> bool:
    return _installs(spec) and spec["install"].get("by") != "ironic"


def _becomes_a_host(spec: Spec) -> bool:
    """A spare does not before it is commissioned (see spares.py)."""
    return bool(spec.get("host")) and not spec.get("spare")


@dataclass(frozen=True)
class Stage:
    """name: its step's. wanted: whether a machine with such a spec goes through it. looks: it only looks at it."""

    name: str
    wanted: Callable[[Spec], bool] = _always
    looks: bool = False


STAGES = (
    Stage("power", looks=True),  # the BMC answers, and takes the password
    Stage("inspect", looks=True),  # what it is made of
    Stage("classify", looks=True),  # what it is good for, by the rules
    Stage("check", looks=True),  # whether it is sound, by the rules
    Stage("hardware", lambda spec: bool(spec.get("hardware"))),  # whether it is sound, by trying it
    Stage("ramdisk", _boots_our_ramdisk),  # it starts from the network, and a disk is chosen
    Stage("install", _installs),  # the disk is written
    Stage("boot", _installs),  # it starts from that, and is known by its host key
    Stage("configure", _becomes_a_host),  # it is made a hypervisor
    Stage("enroll", _becomes_a_host),  # it is enrolled as a host
    Stage("verify", _becomes_a_host),  # a test instance runs there
)
LOOKS = tuple(stage.name for stage in STAGES if stage.looks)


def stages_for(spec: Spec) -> list[str]:
    """Return the names of the stages that a machine goes through."""
    return [stage.name for stage in STAGES if stage.wanted(spec)]


def stages_of(parameters: Mapping[str, Any]) -> list[str]:
    """Return the stages of an operation."""
    return list(parameters.get("stages") or LOOKS)


def is_whole(parameters: Mapping[str, Any], done: Collection[str]) -> bool:
    """Say whether all stages of an operation are done."""
    return all(name in done for name in stages_of(parameters))
