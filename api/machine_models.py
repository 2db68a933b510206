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
    checks: list[Object] = Field(description="name, passed, figure, require")
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
