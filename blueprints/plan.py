"""What is asked for when moves between hosts are to be planned, and which of them a cluster may make by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from blueprints.common import Name, Spec

Threshold = Annotated[float, Field(ge=0.0, le=1.0, description="what is so little above the lowest load is let be")]


class PlanSpec(Spec):
    """Moves to be planned: a cluster's hosts as even as is worth it, as few of them as can be, or one host emptied."""

    kind: Literal["rebalance", "consolidate", "evacuate"]
    host: Name | None = Field(default=None, description="to be emptied")
    cluster: Name | None = Field(default=None, description="only there; by default everywhere")
    threshold: Threshold = 0.05
    cold: bool = Field(default=False, description="also what has to be shut down for the way")

    @model_validator(mode="after")
    def _one_host(self) -> PlanSpec:
        if (self.kind == "evacuate") != (self.host is not None):
            raise ValueError("an evacuation, and nothing else, is of a host")
        return self


class ApplyPlan(Spec):
    parallel: Annotated[int, Field(ge=1, le=64)] = Field(default=4, description="moves at a time")
    per_host: Annotated[int, Field(ge=1, le=16)] = Field(default=2, description="of these that a host takes part in")


class RebalanceSpec(Spec):
    """Which plans a cluster makes and carries out by itself: looked at every ten minutes."""

    mode: Literal["manual", "automatic"] = "manual"
    kind: Literal["rebalance", "consolidate"] = "rebalance"
    threshold: Threshold = 0.1
    max_moves_per_hour: Annotated[int, Field(ge=1, le=10_000)] = 20

    @property
    def automatic(self) -> bool:
        return self.mode == "automatic"
