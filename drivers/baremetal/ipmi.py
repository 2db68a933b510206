"""BMCs that speak IPMI over LAN, by the program ipmitool on the front-end (no kept library is as complete)."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

from core.errors import CredentialRejected, HostFault, Invalid, RackflowError, Unreachable, Unsupported
from core.settings import DriverSettings
from core.states import MachinePower
from drivers.baremetal.base import GOALS, BareMetal, BmcEndpoint, PowerChange
from drivers.baremetal.facets import BmcEvent, BootDevice, Sensor

PORT = 623
ORDERS = {
    PowerChange.ON: "on", PowerChange.OFF: "soft", PowerChange.FORCE_OFF: "off", PowerChange.RESET: "reset",
}  # fmt: skip
DEVICES = {BootDevice.DISK: "disk", BootDevice.NETWORK: "pxe", BootDevice.CDROM: "cdrom"}
UNITS = {"degrees C": "celsius", "RPM": "rpm", "Volts": "volts", "Watts": "watts", "percent": "percent"}
HEALTH = {"ok": "OK", "nc": "Warning", "cr": "Critical", "nr": "Critical"}
_LOOK_EVERY_S = 1.0
_BLINK_S = 255  # the longest that every BMC accepts
_TRIES = 2  # of ipmitool itself, over UDP
_UNCLEAR = "Unable to establish"
WORDS: tuple[tuple[str, type[RackflowError]], ...] = (
    ("password is longer", CredentialRejected), ("RAKP 2", CredentialRejected), ("RAKP 4", CredentialRejected),
    ("Unauthorized", CredentialRejected), ("Invalid user name", CredentialRejected),
    ("Invalid command", Unsupported), (_UNCLEAR, Unreachable), ("timeout", Unreachable),
    ("Address lookup", Unreachable),
)  # what ipmitool 1.8.19 says (src/plugins/lanplus)  # fmt: skip


class IpmiBmc(BareMetal):
    """One BMC; each verb is a process, ended at its deadline. Only one at a time: BMCs have few sessions."""

    def __init__(self, endpoint: BmcEndpoint, settings: DriverSettings) -> None:
        self._endpoint, self._settings = endpoint, settings
        self._host, self._port = _where(endpoint)
        self._turn = asyncio.Lock()
        self._closed = False

    async def power(self) -> MachinePower:
        said = await self._run("chassis", "power", "status")
        words = {"is on": MachinePower.ON, "is off": MachinePower.OFF}
        return next((power for word, power in words.items() if word in said), MachinePower.UNKNOWN)

    async def set_power(self, change: PowerChange, *, timeout_s: float = 60.0) -> bool:
        end, seen = time.monotonic() + timeout_s, await self.power()
        if change is not PowerChange.RESET and seen is GOALS[change]:
            return False
        order = PowerChange.ON if change is PowerChange.RESET and seen is MachinePower.OFF else change
        await self._run("chassis", "power", ORDERS[order])
        while (seen := await self.power()) is not GOALS[change]:
            if time.monotonic() > end:
                raise HostFault(
                    f"the BMC of {self._endpoint.name} took the order {change!s}, and after {timeout_s:g} s "
                    f"the machine is {seen!s}", self._subject, {"wanted": change.value, "seen": seen.value},
                    "look at the machine",
                )  # fmt: skip
            await asyncio.sleep(_LOOK_EVERY_S)
        return True

    async def boot_once(self, device: BootDevice) -> bool:
        await self._run("chassis", "bootdev", DEVICES[device])
        return True

    async def identify(self, on: bool) -> bool:
        await self._run("chassis", "identify", str(_BLINK_S if on else 0))
        return True

    async def sensors(self) -> tuple[Sensor, ...]:
        return tuple(parse_sensors(await self._run("sensor")))

    async def events(self, *, limit: int = 100) -> tuple[BmcEvent, ...]:
        return tuple(parse_events(await self._run("sel", "list", "last", str(limit))))[::-1]

    async def close(self) -> None:
        self._closed = True

    @property
    def _subject(self) -> str:
        return f"host/{self._endpoint.name}"

    async def _run(self, *words: str) -> str:
        """Run ipmitool; the password goes by its environment, which only this user can read."""
        if self._closed:
            raise Unreachable(f"the connection to the BMC of {self._endpoint.name} is closed", self._subject)
        async with self._turn:
            code, out, err = await self._process(self._argv(*words))
            if code != 0 and _UNCLEAR in err:  # only when it is talkative does it tell a wrong password from silence
                _, more, why = await self._process(self._argv("-v", "-R", "1", "chassis", "power", "status"))
                err += more + why
        if code != 0:
            raise translated(err or out, self._endpoint, " ".join(words))
        return out

    def _argv(self, *words: str) -> list[str]:
        """Return ipmitool's command line: measured without an answer, 6 s with two tries of a second, 2 s with one."""
        to = ("-H", self._host, "-p", str(self._port), "-U", self._endpoint.user, "-E")
        return ["ipmitool", "-I", "lanplus", *to, "-N", "1", "-R", str(_TRIES), *words]

    async def _process(self, argv: Sequence[str]) -> tuple[int, str, str]:
        pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        env = os.environ | {"IPMI_PASSWORD": self._endpoint.secret()}
        try:
            made = await asyncio.create_subprocess_exec(*argv, stdin=none, stdout=pipe, stderr=pipe, env=env)
        except FileNotFoundError as error:
            raise Unsupported(
                "ipmitool is not installed on the front-end", self._subject, {}, "apt-get install ipmitool"
            ) from error
        limit_s = self._settings.connect_timeout_s + self._settings.command_timeout_s
        try:
            out, err = await asyncio.wait_for(made.communicate(), limit_s)
        except TimeoutError:
            raise translated(f"timeout: no end within {limit_s:g} s", self._endpoint, argv[-1]) from None
        finally:
            if made.returncode is None:
                with suppress(ProcessLookupError):
                    made.kill()
                await made.wait()
        return made.returncode or 0, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def _where(endpoint: BmcEndpoint) -> tuple[str, int]:
    found = urlsplit(endpoint.address)
    if not found.hostname:
        raise Invalid(f"{endpoint.address!r} is not the address of a BMC", f"host/{endpoint.name}")
    return found.hostname, found.port or PORT


def translated(said: str, endpoint: BmcEndpoint, doing: str) -> RackflowError:
    """Return our error for what ipmitool said. Pure."""
    kind = next((kind for words, kind in WORDS if words in said), HostFault)
    last = said.strip().splitlines()[-1] if said.strip() else "nothing was said"
    return kind(
        f"the BMC of {endpoint.name} at {endpoint.address}, {doing}: {last}", f"host/{endpoint.name}",
        {"seen": said[-500:]}, "correct the user or the password" if kind is CredentialRejected else "look at the BMC",
    )  # fmt: skip


def parse_sensors(text: str) -> Iterator[Sensor]:
    """Yield the sensors of `ipmitool sensor` that have a reading in a unit."""
    for line in text.splitlines():
        name, value, unit, state = [*(part.strip() for part in line.split("|")), "", "", "", ""][:4]
        if unit in UNITS:
            number = float(value) if re.fullmatch(r"-?\d+(\.\d+)?", value) else None
            yield Sensor(name, number, UNITS[unit], HEALTH.get(state, ""))


def parse_events(text: str) -> Iterator[BmcEvent]:
    """Yield the entries of `ipmitool sel list`; they name no severity. Times are the BMC's, taken as UTC."""
    for line in text.splitlines():
        number, day, at, *rest = [part.strip() for part in line.split("|")]
        when: datetime | None = None
        with suppress(ValueError):  # Pre-Init: its clock had not been set
            when = datetime.strptime(f"{day} {at.split()[0]}", "%m/%d/%Y %H:%M:%S").replace(tzinfo=UTC)
        yield BmcEvent(number, when, "", " | ".join(rest))


async def connect(endpoint: BmcEndpoint, settings: DriverSettings) -> IpmiBmc:
    """Return the BMC's driver. Raise Invalid (address)."""
    return IpmiBmc(endpoint, settings)
