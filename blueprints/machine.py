"""What is asked for when a machine with a BMC is asked for, and the rules that sort and check machines."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from blueprints.common import Labels, Name, Spec

Expression = Annotated[str, Field(min_length=1, max_length=1024)]


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
    labels: Labels = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_password(self) -> MachineSpec:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
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
