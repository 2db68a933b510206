"""Contract of a machine's BMC: its power, and nothing of what runs on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from core.errors import CredentialRejected
from core.states import MachinePower


class PowerChange(StrEnum):
    ON = "on"
    OFF = "off"  # the operating system is asked
    FORCE_OFF = "force_off"  # cut at once: what runs there is lost
    RESET = "reset"  # cut and on again


GOALS = {
    PowerChange.ON: MachinePower.ON, PowerChange.OFF: MachinePower.OFF, PowerChange.FORCE_OFF: MachinePower.OFF,
    PowerChange.RESET: MachinePower.ON,
}  # fmt: skip


@dataclass(frozen=True)
class BmcEndpoint:
    """Where a host's BMC is. name: the host's; address: a URL; the password stands in a file, else here.

    system_id: which of the systems it manages (the last part of its path, or the path); "" = the only one.
    inspector: behind Ironic, the address of ironic-inspector; "" = Ironic inspects itself.
    """

    name: str
    address: str
    user: str = ""
    password_file: Path | None = None
    password: str = field(default="", repr=False)
    verify_tls: bool = True
    system_id: str = ""
    inspector: str = ""

    def secret(self) -> str:
        """Return the password. Raise CredentialRejected (its file cannot be read)."""
        if self.password_file is None:
            return self.password
        try:
            return self.password_file.read_text().strip()
        except OSError as error:
            raise CredentialRejected(
                f"the password of {self.name}'s BMC cannot be read from {self.password_file}: {error.strerror}",
                f"host/{self.name}", {"file": str(self.password_file)}, "name a file that rackflow may read",
            ) from error  # fmt: skip


class BareMetal(Protocol):
    """One machine's BMC. Errors: Unreachable, CredentialRejected, HostFault, Unsupported."""

    async def power(self) -> MachinePower:
        """Read the power state from the BMC."""
        ...

    async def set_power(self, change: PowerChange, *, timeout_s: float = 60.0) -> bool:
        """Ensure a power state, confirmed by reading it back; a reset is always made. Return whether it was changed.

        Raise HostFault when the BMC has taken the order and the state has not come after timeout_s, Unsupported.
        """
        ...

    async def close(self) -> None: ...
