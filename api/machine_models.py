"""What the API answers about machines with a BMC."""

from __future__ import annotations

from pydantic import Field

from api.models import Answer, At, Id, Labels, Object
from core.states import MachineState


class Machine(Answer):
    id: Id
    name: str
    state: MachineState
    bmc: str = Field(description="address of its BMC")
    user: str
    system: str
    labels: Labels
    classified: Object
    checks: list[Object] = Field(
        description="kind (rule, hardware), name, passed (null: not tried), figure, unit, require, evidence, at"
    )
    error: Object | None
    created_at: At
    updated_at: At


class MachineShown(Machine):
    inventory: Object | None = Field(description="of the last inspection")


class Inspection(Answer):
    at: At
    inventory: Object
    changes: list[Object] = Field(description="since the one before: what, kind, before, after")


class Rotated(Answer):
    passwords: int = Field(description="encrypted again")


class Found(Answer):
    address: str
    vendor: str
    product: str
    version: str = Field(description="of Redfish")
    uuid: str
    machine: str | None = Field(description="which is enrolled with that BMC already")


class Tried(Answer):
    machine: str
    classified: Object | None = Field(description="null: it was never inspected")
    checks: list[Object]
    passed: bool | None


class Health(Answer):
    sensors: list[Object] = Field(
        default=[], description="sensor, value, unit, health, sampled_at, min_week, avg_week, max_week, samples"
    )
    log: list[Object] = Field(default=[], description="entry, logged_at, severity, message, seen_at; newest first")
    readings: list[Object] = Field(default=[], description="of the one sensor asked for: sampled_at, value, health")


class Proposal(Answer):
    cluster: str
    resource: str = Field(description="the one that runs out first")
    runs_out_at: At = Field(description="at the earliest, four times out of five later")
    proven: bool = Field(description="whether such forecasts beat their naive baseline so far")
    short: Object = Field(description="by resource: what is missing in 30 days, at worst")
    machine: str | None = Field(description="the spare that would help; null: there is none")
    enough: bool
    automatic: bool = Field(description="whether the cluster does it by itself")
    asked_at: At
