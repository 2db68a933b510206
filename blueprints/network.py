"""What is asked for when a virtual network is asked for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import Literal

from pydantic import Field, model_validator

from blueprints.common import Labels, Name, Spec


class RangeSpec(Spec):
    """First to last address, both included."""

    first: IPv4Address
    last: IPv4Address

    @model_validator(mode="after")
    def _order(self) -> RangeSpec:
        if self.last < self.first:
            raise ValueError(f"last ({self.last}) lies before first ({self.first})")
        return self


class NetworkSpec(Spec):
    """A bridge by that name on each host of the cluster.

    addressing pool: one subnet for all hosts, addresses out of `ranges`.
    addressing host: each host's bridge has a subnet of its own (as lxcbr0 has); addresses come out of that.
    addressing dhcp: somebody else gives them.
    """

    name: Name
    kind: Literal["bridge"] = "bridge"
    bridge: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,15}$")
    addressing: Literal["pool", "host", "dhcp"] = "pool"
    subnet: IPv4Interface | None = Field(default=None, description="for pool, e.g. 198.18.17.0/24")
    gateway: IPv4Address | None = None
    nameservers: tuple[IPv4Address, ...] = ()
    ranges: tuple[RangeSpec, ...] = ()
    cluster: Name | None = None
    default_for: tuple[Literal["vm", "container"], ...] = Field(
        default=(), description="kinds of instance that get a NIC here if they name none"
    )
    labels: Labels = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> NetworkSpec:
        if self.addressing == "pool":
            if self.subnet is None or not self.ranges:
                raise ValueError("addressing pool needs subnet and ranges")
            for item in self.ranges:
                if item.first not in self.subnet.network or item.last not in self.subnet.network:
                    raise ValueError(f"range {item.first}-{item.last} is not inside {self.subnet.network}")
        elif self.ranges:
            raise ValueError(f"addressing {self.addressing} takes no ranges")
        return self
