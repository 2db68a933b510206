"""What is asked for when a host is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from blueprints.common import Labels, Name, SizeMib, Spec


class BridgeSpec(Spec):
    """A bridge to be there after enrollment; address e.g. 10.1.0.1/24 (empty: chosen by the hypervisor)."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,15}$")]
    address: str = ""


class BmcSpec(Spec):
    """A host's BMC, by Redfish, IPMI or behind Ironic. system: which of those it manages, by default the only one."""

    address: Annotated[str, Field(pattern=r"^((ironic\+)?https?|ipmi|fake)://")] = Field(
        description="e.g. https://10.0.0.1 (Redfish), ipmi://10.0.0.1, ironic+http://10.0.0.2:6385"
    )
    user: str = ""
    password_file: str | None = Field(default=None, description="on the front-end")
    system: str = Field(default="", description="the last part of its path below /redfish/v1/Systems, or the path")
    verify_tls: bool = True


class HostSpec(Spec):
    """A machine that is reached by SSH. cpus and memory: declared capacity, by default what is found."""

    name: Name
    address: str = Field(min_length=1)
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    user: str = "root"
    driver: Literal["kvm", "lxd", "fake"] | None = Field(
        default=None, description="by default what is found on it; fake is simulated"
    )
    key_file: str | None = Field(
        default=None, description="private key on the front-end; default: rackflow's own"
    )
    fingerprint: str | None = Field(
        default=None, description="SHA256:… of its host key; else asked, or trusted with --yes"
    )
    cluster: Name = "default"
    cpus: Annotated[int, Field(gt=0)] | None = None
    memory_mib: SizeMib | None = Field(default=None, alias="memory")
    cpu_overcommit: Annotated[float, Field(ge=1.0, le=64.0)] | None = None
    memory_overcommit: Annotated[float, Field(ge=1.0, le=4.0)] | None = None
    bridges: tuple[BridgeSpec, ...] = ()
    bmc: BmcSpec | None = Field(default=None, description="how its power is cut when it is dead, and put on again")
    labels: Labels = Field(default_factory=dict)
