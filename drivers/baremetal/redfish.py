"""BMCs that speak Redfish, by the library sushy. It blocks: each BMC has a small thread pool, and calls a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import sushy
from sushy import exceptions

from core.errors import CredentialRejected, HostFault, RackflowError, Unreachable, Unsupported
from core.settings import DriverSettings
from core.states import MachinePower
from drivers.baremetal import redfish_facets
from drivers.baremetal.base import GOALS, BareMetal, BmcEndpoint, PowerChange
from drivers.baremetal.calls import Calls
from drivers.baremetal.facets import BmcEvent, BootDevice, Sensor
from drivers.baremetal.inventory import Inventory

T = TypeVar("T")
POWERS = {sushy.PowerState.ON: MachinePower.ON, sushy.PowerState.OFF: MachinePower.OFF}
RESETS = {
    PowerChange.ON: (sushy.ResetType.ON, sushy.ResetType.FORCE_ON),
    PowerChange.OFF: (sushy.ResetType.GRACEFUL_SHUTDOWN,),
    PowerChange.FORCE_OFF: (sushy.ResetType.FORCE_OFF,),
    PowerChange.RESET: (sushy.ResetType.FORCE_RESTART, sushy.ResetType.POWER_CYCLE),
}  # the first that the BMC allows is taken
_ONE_TRY = 1  # sushy's own retries sleep in the thread; tasks retry
_LOOK_EVERY_S = 0.5


class RedfishBmc(BareMetal):
    """One system behind one BMC. Nothing is sent before the first verb."""

    def __init__(self, endpoint: BmcEndpoint, settings: DriverSettings) -> None:
        self._endpoint = endpoint
        self._settings = settings
        limit_s = settings.connect_timeout_s + settings.command_timeout_s
        self._calls = Calls(f"the BMC of {endpoint.name}", self._subject, limit_s, self._translated)
        self._root: Any = None  # sushy's root resource, logged in
        self._auth: Any = None

    async def power(self) -> MachinePower:
        return await self._call("reading the power state", lambda system: _power(system))

    async def set_power(self, change: PowerChange, *, timeout_s: float = 60.0) -> bool:
        end = time.monotonic() + timeout_s
        changed = await self._call(f"power {change}", lambda system: self._order(system, change))
        seen = await self.power()
        while seen is not GOALS[change]:
            if time.monotonic() > end:
                raise HostFault(
                    f"the BMC of {self._endpoint.name} took the order {change!s}, and after {timeout_s:g} s "
                    f"the machine is {seen!s}", self._subject, {"wanted": change.value, "seen": seen.value},
                    "look at the machine",
                )  # fmt: skip
            await asyncio.sleep(_LOOK_EVERY_S)
            seen = await self.power()
        return changed

    def _order(self, system: Any, change: PowerChange) -> bool:
        """Give the order unless the machine is there already; one that is off is not reset but put on."""
        seen = _power(system)
        if change is not PowerChange.RESET and seen is GOALS[change]:
            return False
        if change is PowerChange.RESET and seen is MachinePower.OFF:
            change = PowerChange.ON
        allowed = system.get_allowed_reset_system_values()
        order = next((one for one in RESETS[change] if one in allowed), None)
        if order is None:
            words = ", ".join(sorted(one.value for one in allowed))
            raise Unsupported(f"the BMC of {self._endpoint.name} has no order for {change!s}: {words}", self._subject)
        system.reset_system(order)
        return True

    async def boot_once(self, device: BootDevice) -> bool:
        return await self._call(f"boot from {device}", lambda s: redfish_facets.boot_once(s, device, self._name))

    async def media(self) -> str:
        def image(system: Any) -> str:
            drive = redfish_facets.drive(system, self._name)
            return str(drive.image or "") if drive.inserted else ""

        return await self._call("reading the virtual CD drive", image)

    async def insert_media(self, url: str) -> bool:
        def insert(system: Any) -> bool:
            return redfish_facets.insert(redfish_facets.drive(system, self._name), url)

        return await self._call("inserting an image", insert)

    async def eject_media(self) -> bool:
        def eject(system: Any) -> bool:
            return redfish_facets.eject(redfish_facets.drive(system, self._name))

        return await self._call("taking the image out", eject)

    async def inspect(self, *, timeout_s: float = 1800.0) -> Inventory:
        """Ask the BMC: the machine itself is not touched, and the call's own deadline is shorter."""
        return await self._call("reading the inventory", redfish_facets.inventory)

    async def sensors(self) -> tuple[Sensor, ...]:
        return await self._call("reading the sensors", redfish_facets.sensors)

    async def events(self, *, limit: int = 100) -> tuple[BmcEvent, ...]:
        return await self._call("reading the event log", lambda system: redfish_facets.events(system, limit))

    async def identify(self, on: bool) -> bool:
        return await self._call("the identify LED", lambda system: redfish_facets.identify(system, on, self._name))

    async def close(self) -> None:
        """Log out, for a BMC has few sessions, and let the threads go; calls under way end with their own timeouts."""
        self._calls.close(self._log_out)

    @property
    def _name(self) -> str:
        return self._endpoint.name

    @property
    def _subject(self) -> str:
        return f"host/{self._endpoint.name}"

    async def _call(self, doing: str, work: Callable[[Any], T]) -> T:
        return await self._calls(doing, lambda: self._with_system(work))

    def _translated(self, error: Exception, doing: str) -> RackflowError:
        if isinstance(error, exceptions.AccessError):
            self._forget()
        return translated(error, self._endpoint, doing)

    def _with_system(self, work: Callable[[Any], T]) -> T:
        if self._root is None:
            self._root = self._log_in()
        wanted = self._endpoint.system_id
        path = wanted if not wanted or wanted.startswith("/") else f"/redfish/v1/Systems/{wanted}"
        return work(self._root.get_system(path or None))

    def _log_out(self) -> None:
        with suppress(exceptions.SushyError):
            if self._auth is not None:
                self._auth.close()
        self._forget()

    def _forget(self) -> None:
        """Let the next call log in anew. sushy's object logs out when it is collected, in any thread: not this one."""
        if self._auth is not None:
            self._auth.reset_session_attrs()
        self._root = self._auth = None

    def _log_in(self) -> Any:
        self._auth = sushy.auth.SessionOrBasicAuth(self._endpoint.user, self._endpoint.secret())
        return sushy.Sushy(
            self._endpoint.address, auth=self._auth, verify=self._endpoint.verify_tls, server_side_retries=_ONE_TRY,
            connect_timeout=self._settings.connect_timeout_s, read_timeout=self._settings.command_timeout_s,
        )  # fmt: skip


def _power(system: Any) -> MachinePower:
    return POWERS.get(system.power_state, MachinePower.UNKNOWN)


def _innermost(error: BaseException) -> str:
    """Return what the system said below sushy, requests and urllib3, each of which wraps it; else the error itself."""
    below = error
    while inner := below.__cause__ or below.__context__:
        below = inner
    said = (below.strerror if below.errno else None) or str(below) if isinstance(below, OSError) else ""
    return said or str(error) or type(error).__name__


def translated(error: Exception, endpoint: BmcEndpoint, doing: str) -> RackflowError:
    """Return our error for one of sushy's, or for a deadline."""
    subject, what = f"host/{endpoint.name}", f"the BMC of {endpoint.name} at {endpoint.address}, {doing}"
    evidence = {"address": endpoint.address, "seen": str(error) or type(error).__name__}
    if isinstance(error, exceptions.AccessError):
        return CredentialRejected(
            f"{what}: user {endpoint.user!r} was rejected", subject, evidence, "correct the user or the password file"
        )
    if isinstance(error, exceptions.ConnectionError | exceptions.ServerSideError | TimeoutError):
        fix = f"see whether {endpoint.address} is reached from the front-end, and how its certificate is"
        return Unreachable(f"{what}: no answer ({_innermost(error)})", subject, evidence, fix)
    return HostFault(f"{what}: {evidence['seen']}", subject, evidence, "look at the BMC, and at the host's bmc entry")


async def connect(endpoint: BmcEndpoint, settings: DriverSettings) -> RedfishBmc:
    """Return the BMC's driver; it logs in with the first verb."""
    return RedfishBmc(endpoint, settings)
