"""What is asked for when room is kept for later, or a host is to be empty for a while."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from blueprints.common import Name, SizeMib, Spec


class ReservationSpec(Spec):
    """From a time on: cores and memory of a host or cluster for somebody (hold), or all of it for work on it."""

    name: Name
    kind: Literal["hold", "maintenance"] = "hold"
    host: Name | None = None
    cluster: Name | None = None
    begins_at: AwareDatetime = Field(description="RFC 3339")
    ends_at: AwareDatetime
    cpu: Annotated[float, Field(ge=0, le=1_000_000)] = Field(default=0.0, description="cores, of a hold")
    memory_mib: Annotated[SizeMib, Field(le=2**40)] | None = Field(
        default=None, alias="memory", description="of a hold"
    )
    reason: Annotated[str, Field(max_length=255)] = Field(default="", description="what for, in words")

    @model_validator(mode="after")
    def _whole(self) -> ReservationSpec:
        if (self.host is None) == (self.cluster is None):
            raise ValueError("name a host or a cluster, one of them")
        if self.ends_at <= self.begins_at:
            raise ValueError("ends_at must come after begins_at")
        if (self.kind == "hold") != bool(self.cpu or self.memory_mib):
            raise ValueError("a hold needs cpu, memory or both, a maintenance takes all")
        return self
