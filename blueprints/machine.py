"""What is asked for when a machine with a BMC is asked for, and the rules that sort and check machines."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from blueprints.common import Labels, Name, Spec
from blueprints.host import BridgeSpec

MAC = r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"
PACKED = (".zst", ".gz")
Expression = Annotated[str, Field(min_length=1, max_length=1024)]


class SshSpec(Spec):
    """How the operating system of a machine that runs one is reached."""

    address: str = Field(min_length=1)
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    user: str = "root"
    key_file: str | None = Field(default=None, description="private key on the front-end; default: rackflow's own")
    fingerprint: str | None = Field(
        default=None, description="SHA256:… of its host key; without it the first key that is shown is pinned"
    )


MachineAction = Literal["power-on", "power-off", "power-cut", "reset", "rescue", "led-on", "led-off", "erase"]
HardwareCheck = Literal["memory", "disk", "network", "burn-in"]


class HardwareSpec(Spec):
    """Checks that try a machine's hardware, over SSH. Nothing is written to its disks.

    checks: those that must run; none named: those whose tools are installed there.
    """

    checks: tuple[HardwareCheck, ...] = ()
    seconds: Annotated[int, Field(ge=1, le=3600, description="of memory, and of each disk")] = 10
    burn_in_s: Annotated[int, Field(ge=0, le=7 * 86400, description="under full load; 0: none")] = 0
    memory_mib: Annotated[int, Field(ge=1, description="of memory that is tried")] = 64
    disk_min_mbps: Annotated[float, Field(ge=0, description="MB/s that each disk must read at random")] = 0.0
    nic_min_mbps: Annotated[int, Field(ge=0, description="Mbit/s that each link that is up must have")] = 0

    @model_validator(mode="after")
    def _burns_in_for_some_time(self) -> HardwareSpec:
        if "burn-in" in self.checks and not self.burn_in_s:
            raise ValueError("burn-in needs burn_in_s: for how long")
        return self


class NodeSpec(Spec):
    """How Ironic, at whose address the machine's `bmc` is, reaches the BMC itself; it is made known to it so."""

    driver: Literal["redfish", "ipmi", "fake-hardware"] = "redfish"
    address: str = Field(default="", description="e.g. https://10.0.0.1, or for ipmi 10.0.0.1")
    user: str = ""
    password_file: str | None = Field(default=None, description="on the front-end")
    system: str = Field(default="", description="e.g. /redfish/v1/Systems/1")
    macs: tuple[Annotated[str, Field(pattern=MAC)], ...] = Field(default=(), description="of the cards that boot")
    inspector: str = Field(default="", description="address of ironic-inspector; by default Ironic inspects itself")


class InstallSpec(Spec):
    """An operating system for a machine: the image of a whole disk, and what it is given before its first start."""

    by: Literal["ramdisk", "ironic"] = Field(
        default="ramdisk", description="who writes the disk: our ramdisk by SSH, or Ironic, with a config drive"
    )
    image: Annotated[str, Field(min_length=1)] = Field(
        description="http(s)://…, which the machine fetches, or a path on the front-end; .zst and .gz are unpacked"
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    address: str = Field(description="of the installed machine, with its prefix, e.g. 10.0.0.5/24")
    gateway: str = ""
    nameservers: tuple[str, ...] = ()
    disk: str = Field(default="", description="by serial, WWN or name; by default the smallest of at least 4 GiB")
    overwrite: bool = Field(default=False, description="also a disk that is not empty: all on it is lost")
    ramdisk_key: Annotated[str, Field(pattern=r"^(ssh-ed25519 [A-Za-z0-9+/=]+)?$")] = Field(
        default="", description="public host key of the ramdisk that the machine boots from the network"
    )

    @field_validator("address")
    @classmethod
    def _with_prefix(cls, given: str) -> str:
        if "/" not in given:
            raise ValueError(f"{given} has no prefix: write {given}/24")
        return str(ip_interface(given))

    @model_validator(mode="after")
    def _what_its_writer_needs(self) -> InstallSpec:
        if self.by == "ramdisk" and not self.ramdisk_key:
            raise ValueError("ramdisk_key is missing: the public host key of the ramdisk")
        if self.by == "ironic" and not self.overwrite:
            raise ValueError("Ironic does not look what is on the disk: say overwrite: true, all on it is lost")
        if self.by == "ironic" and (not self.image.startswith(("http://", "https://")) or self.image.endswith(PACKED)):
            raise ValueError("Ironic takes http(s)://… of an image that is raw or qcow2, not packed")
        return self


class BecomesSpec(Spec):
    """The host that a machine becomes. address, fingerprint: of one that runs an operating system already."""

    role: Literal["kvm", "lxd"] | None = Field(default=None, description="by default as the rules say")
    address: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    user: str = "root"
    key_file: str | None = Field(default=None, description="private key on the front-end; default: rackflow's own")
    fingerprint: str = Field(default="", description="SHA256:… of its host key")
    cluster: Name | None = Field(default=None, description="by default as the rules say")
    bridges: tuple[BridgeSpec, ...] = ()
    test_image: Name | None = Field(default=None, description="of the test instance; by default the smallest")


class MachineSpec(Spec):
    """A machine by its BMC: Redfish, IPMI or behind Ironic. The password is given, or stands in a file."""

    name: Name
    bmc: Annotated[str, Field(max_length=180, pattern=r"^((ironic\+)?https?|ipmi|fake)://[^@\s]+$")] = Field(
        description="e.g. https://10.0.0.1 (Redfish), ipmi://10.0.0.1, ironic+http://10.0.0.2:6385"
    )
    user: str = ""
    password: SecretStr | None = Field(default=None, description="kept encrypted, never shown")
    password_file: str | None = Field(default=None, description="on the front-end")
    system: str = Field(default="", max_length=64, description="which of those of the BMC, by default its one")
    verify_tls: bool = True
    ssh: SshSpec | None = Field(default=None, description="of what runs on it already")
    hardware: HardwareSpec | None = Field(default=None, description="try its hardware; needs ssh")
    labels: Labels = Field(default_factory=dict)
    node: NodeSpec | None = None
    install: InstallSpec | None = None
    host: BecomesSpec | None = None
    spare: bool = Field(default=False, description="known and checked only; a host when it is commissioned")

    @model_validator(mode="after")
    def _a_way_in(self) -> MachineSpec:
        if self.spare and not self.host:
            raise ValueError("a spare needs host: what it becomes when it is commissioned, at least host: {}")
        if self.install and not self.host:
            raise ValueError("install needs host: what the machine becomes, at least host: {}")
        if self.host and not self.install and not (self.host.address and self.host.fingerprint):
            raise ValueError("host needs address and fingerprint of what runs on the machine, or install")
        if self.node and not self.bmc.startswith("ironic+"):
            raise ValueError("node is for machines behind Ironic: bmc ironic+http://…")
        if self.install and self.install.by == "ironic" and not self.bmc.startswith("ironic+"):
            raise ValueError("install by: ironic is for machines behind Ironic: bmc ironic+http://…")
        return self

    @model_validator(mode="after")
    def _one_password(self) -> MachineSpec:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        return self

    @model_validator(mode="after")
    def _hardware_is_tried_from_within(self) -> MachineSpec:
        if self.hardware is not None and self.ssh is None:
            raise ValueError("hardware is tried over SSH: give ssh, the address of what runs on it")
        return self


class ClassifySpec(Spec):
    """A rule: machines for which `when` holds get these; of several rules the first that gives a field decides."""

    name: Name
    when: Expression
    role: Annotated[str, Field(pattern=r"^(kvm|lxd|spare)$")] | None = None
    cluster: Name | None = None
    rack: str | None = None
    failure_domain: str | None = None
    traits: tuple[Name, ...] = ()


class CheckSpec(Spec):
    """A check: `require` must hold where `when` does; figure is the number that is shown with its outcome."""

    name: Name
    when: Expression | None = None
    require: Expression
    figure: Expression | None = None


class MachineRulesSpec(Spec):
    """All rules, in their order."""

    classify: tuple[ClassifySpec, ...] = ()
    checks: tuple[CheckSpec, ...] = ()

    @model_validator(mode="after")
    def _names_once(self) -> MachineRulesSpec:
        names = [*(one.name for one in self.classify), *(one.name for one in self.checks)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rules bear the same name: {', '.join(twice)}")
        return self
