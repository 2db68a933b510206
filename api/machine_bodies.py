"""What the routes of machines are asked with, besides the specs of blueprints."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api.bodies import Wanted
from blueprints.machine import HardwareSpec, MachineAction, MachineRulesSpec


class Change(Wanted):
    machines: Annotated[list[str], Field(min_length=1, max_length=10_000, description="names")]
    action: MachineAction
    force: bool = Field(default=False, description="cut the power of a host even if it holds instances")


class Look(Wanted):
    """Look again at machines that are known: inspected, classified and checked, or, with hardware, only tried."""

    machines: Annotated[list[str], Field(min_length=1, max_length=10_000, description="names")]
    hardware: HardwareSpec | None = None


class Commission(Wanted):
    machines: Annotated[list[str], Field(min_length=1, max_length=1000, description="names of spares")]


class Discover(Wanted):
    range: str = Field(description="10.0.0.0/24, 10.0.0.5-10.0.0.40 or one address", examples=["10.0.0.0/24"])
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    scheme: str = Field(default="https", examples=["https"])


class TryRules(Wanted):
    rules: MachineRulesSpec | None = Field(default=None, description="by default those in force")
    machines: list[str] = Field(default=[], description="names; none means all")
