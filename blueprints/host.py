"""What is asked for when a host is asked for."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

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


class SshWaySpec(Spec):
    """An SSH server by which the API of a host is reached that does not answer from the front-end; it must forward."""

    address: str = Field(default="", description="by default the host's own: ESXi's SSH")
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    user: str = "root"
    key_file: str | None = Field(default=None, description="private key on the front-end; default: rackflow's own")
    fingerprint: Annotated[str, Field(pattern=r"^SHA256:")] = Field(description="SHA256:… of its host key")


class HostSpec(Spec):
    """A machine that is reached by SSH, or vSphere by its API. cpus, memory: declared capacity, by default as found."""

    name: Name
    address: str = Field(min_length=1)
    port: Annotated[int, Field(ge=1, le=65535, description="of SSH; esxi: of the API, 443 by default")] = 22
    user: str = "root"
    driver: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,15}$")] | None = Field(
        default=None, examples=["kvm", "lxd", "firecracker", "esxi", "fake"],
        description="by default what is found on it; esxi: an ESXi host or a vCenter; fake is simulated; packages may "
        "bring others (`rackflow driver list`)",
    )
    place: str | None = Field(
        default=None, description="of a vCenter: DATACENTER/CLUSTER, …/CLUSTER/HOST or …/CLUSTER/Resources/POOL"
    )
    password_file: str | None = Field(default=None, description="on the front-end; esxi: of the user of its API")
    ssh: SshWaySpec | None = Field(default=None, description="esxi: its API is reached through this")
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
    cpu_learned_max: Annotated[float, Field(ge=0, le=64.0)] | None = Field(
        default=None, description="as the cluster's, which holds by default"
    )
    memory_overcommit: Annotated[float, Field(ge=1.0, le=4.0)] | None = None
    pci: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{4}:([0-9a-f]{4}|\*)$")], ...] = Field(
        default=(), description="devices that instances may have for themselves, by vendor:device, e.g. 10de:*"
    )
    pinned_cpus: Annotated[str, Field(pattern=r"^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$")] = Field(
        default="", description="cores for those that want whole ones for themselves, e.g. 2-7; nobody else gets them"
    )
    bridges: tuple[BridgeSpec, ...] = ()
    bmc: BmcSpec | None = Field(default=None, description="how its power is cut when it is dead, and put on again")
    labels: Labels = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _port_of_the_api(cls, given: Any) -> Any:
        by_api = isinstance(given, dict) and given.get("driver") == "esxi"
        return {"port": 443, **given} if by_api else given

    @model_validator(mode="after")
    def _password_where_it_is_used(self) -> HostSpec:
        if self.driver == "esxi" and not self.password_file:
            raise ValueError("esxi needs password_file: a file on the front-end with the password of its user")
        if self.driver in (None, "kvm", "lxd", "fake") and (self.place or self.password_file):
            raise ValueError("place and password_file are for driver esxi, and for those of packages that take them")
        if self.driver in (None, "kvm", "lxd", "fake") and self.ssh:
            raise ValueError("ssh is for driver esxi: the others are reached by SSH anyway")
        return self
