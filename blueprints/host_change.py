"""What is asked for when a host is to be emptied, cut off, or to hand over what runs on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from blueprints.common import Name, Spec


class Evacuate(Spec):
    live: bool | None = Field(default=None, description="without stopping what runs; by default where that can be")


class Fence(Spec):
    """There is nothing to choose."""


class Adopt(Spec):
    instances: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1000)] = Field(
        description="their names on the host"
    )
    names: dict[str, Name] = Field(default_factory=dict, description="the name with us, where it is to be another one")
