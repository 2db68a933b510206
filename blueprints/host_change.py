"""What is asked for when a host is to be emptied, cut off, or to hand over what runs on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from blueprints.common import Name, Spec


class Evacuate(Spec):
    live: bool | None = Field(default=None, description="without stopping what runs; by default where that can be")
    parallel: Annotated[int, Field(ge=1, le=16)] = Field(default=2, description="instances that leave it at a time")
    then: Literal["maintenance", "disabled"] | None = Field(
        default=None, description="its state once it is empty; by default it stays draining"
    )


class Fence(Spec):
    confirmed: bool = Field(default=False, description="a person has seen that it is off: its BMC is not asked")


class Adopt(Spec):
    instances: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1000)] = Field(
        description="their names on the host"
    )
    names: dict[str, Name] = Field(default_factory=dict, description="the name with us, where it is to be another one")
