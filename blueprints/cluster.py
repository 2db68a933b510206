"""What is asked for when a cluster is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from blueprints.common import Labels, Name, Spec
from blueprints.plan import RebalanceSpec
from blueprints.power import PowerSpec


class ClusterSpec(Spec):
    """Hosts that share datastores and networks, with their overcommit."""

    name: Name
    cpu_overcommit: Annotated[float, Field(ge=1.0, le=64.0)] = 4.0
    cpu_learned_max: Annotated[float, Field(ge=0, le=64.0)] = Field(
        default=0.0,
        description="cores are given away by what is used, this many times at most; 0: by cpu_overcommit instead",
    )
    memory_overcommit: Annotated[float, Field(ge=1.0, le=4.0)] = 1.0
    placement_policy: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="by which policy its hosts are compared; by default the front-end's"
    )
    labels: Labels = Field(default_factory=dict)
    rebalance: RebalanceSpec | None = Field(default=None, description="by default moves are planned by hand only")
    power: PowerSpec | None = Field(default=None, description="by default hosts are put to sleep by hand only")
