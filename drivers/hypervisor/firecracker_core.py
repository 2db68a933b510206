"""What all parts of the Firecracker driver share: scripts on the host, the API, and one change at a time for a VM."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from core.errors import Busy, Conflict, HostFault, Invalid, NotFound, RackflowError, Unreachable
from core.ids import from_host
from core.settings import DriverSettings
from core.states import PowerState
from drivers.hypervisor import firecracker_config as config
from drivers.hypervisor import firecracker_scripts as scripts
from drivers.hypervisor.alone import Alone
from drivers.hypervisor.firecracker_api import FirecrackerApi
from drivers.hypervisor.firecracker_place import Place, place_of
from drivers.hypervisor.firecracker_seen import Vm, parse
from drivers.transport.base import Result, Transport

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PAUSED = "Paused"
_BOOT_S = 20.0  # for the VMM to take its configuration; the guest boots on its own time
HELD_BY_USER, HELD_BY_SNAPSHOT = "suspended", "snapshot"


def subject_of(name: str) -> str:
    """Return the subject of errors about an instance, by its name on the host."""
    return f"instance/{from_host(name) or name}"


class FirecrackerCore(Alone):
    """One host's microVMs. place: where they are, by default as the settings say."""

    def __init__(self, transport: Transport, settings: DriverSettings, place: Place | None = None) -> None:
        super().__init__()
        self._transport = transport
        self._host = transport.endpoint.name
        self._api = FirecrackerApi(transport)
        self._kernels: dict[str, bool] = {}  # name -> whether it has an initrd
        self.place = place or place_of(settings)

    async def _script(
        self, script: str, *words: str, stdin: bytes = b"", check: bool = True, timeout_s: float = 60.0
    ) -> Result:
        argv = scripts.argv(script, *words)
        return await self._transport.run(argv, stdin=stdin, sudo=True, check=check, timeout_s=timeout_s)

    async def _changed(self, script: str, *words: str, stdin: bytes = b"", timeout_s: float = 60.0) -> bool:
        found = await self._script(script, *words, stdin=stdin, timeout_s=timeout_s)
        return found.stdout.strip() == scripts.CHANGED

    def refused(self, name: str, doing: str, found: Result) -> RackflowError:
        """Return the error for a script that ended badly."""
        subject, seen = subject_of(name), found.stderr.strip()[-2000:]
        errors: dict[int, RackflowError] = {
            scripts.ABSENT: Conflict(f"there is no {name} on {self._host}", subject, {}, "define it first"),
            scripts.FOREIGN: Conflict(
                f"a microVM {name} on {self._host} is not ours", subject, {}, "rename or remove it there"
            ),
            scripts.RUNS: Conflict(f"{name} on {self._host} runs", subject, {}, "stop it first"),
            scripts.LATE: Unreachable(f"{name} on {self._host} did not come in time while {doing}", subject, {}, ""),
        }  # fmt: skip
        return errors.get(found.exit_code) or HostFault(
            f"{doing} {name} failed on {self._host}: {seen.splitlines()[-1] if seen else 'it says nothing'}", subject,
            {"exit_code": found.exit_code, "seen": seen}, "see the evidence; the VM's log is in its folder on the host",
        )

    # -- looking

    async def _look(self, name: str = "*") -> dict[str, Vm]:
        words = (self.place.state, self.place.run, name)
        found = parse((await self._script(scripts.LOOK, *words)).stdout)
        if any(vm.is_lost for vm in found.values()):  # or it was just being started anew
            found = parse((await self._script(scripts.LOOK, *words)).stdout)
        return found

    async def _find(self, name: str) -> Vm | None:
        return (await self._look(name)).get(name) if _NAME.fullmatch(name) else None

    async def _known(self, name: str) -> Vm:
        """Return one. Raise NotFound."""
        found = await self._find(name)
        if found is None:
            raise NotFound(f"there is no {name} on {self._host}", subject_of(name), {}, "define it first")
        return found

    async def _there(self, name: str) -> Vm:
        """Return one. Raise Conflict (absent)."""
        found = await self._find(name)
        if found is None:
            raise Conflict(f"there is no {name} on {self._host}", subject_of(name), {}, "define it first")
        return found

    async def _running(self, name: str) -> Vm:
        """Return one that runs, or is paused. Raise Conflict (absent, off)."""
        found = await self._there(name)
        if not found.runs:
            raise Conflict(f"{name} on {self._host} is off", subject_of(name), {}, "start it first")
        return found

    async def _power(self, vm: Vm) -> PowerState:
        """Return its power; the VMM is asked only where it may be paused."""
        if vm.runs and vm.held and await self._is_paused(vm.name):
            return PowerState.PAUSED
        return vm.power

    # -- the API

    async def _call(
        self, name: str, method: str, path: str, body: Any = None, *, doing: str, timeout_s: float = 30.0
    ) -> Any:
        return await self._api.call(
            self.place.socket(name), method, path, body, subject=subject_of(name), doing=f"{doing} {name}",
            timeout_s=timeout_s,
        )  # fmt: skip

    async def _is_paused(self, name: str) -> bool:
        found = await self._call(name, "GET", "/", doing="looking at")
        return bool(found["state"] == _PAUSED)

    async def _set_paused(self, name: str, paused: bool, by: str = HELD_BY_USER) -> None:
        """Pause or let go on. The mark is there whenever it may be paused, so that a look knows whom to ask."""
        mark = f"{self.place.running(name)}/held"
        if paused:
            await self._script(scripts.MARK, mark, by)
        state = _PAUSED if paused else "Resumed"
        await self._call(name, "PATCH", "/vm", {"state": state}, doing="pausing" if paused else "resuming")
        if not paused:
            await self._script(scripts.MARK, mark, "")

    # -- starting and cutting off

    async def _start_vmm(self, name: str, wanted: Mapping[str, Any], *, snapshot: str = "") -> bool:
        """Start the VMM: by its configuration, or for a snapshot (a folder) to be loaded into it."""
        place, has_initrd = self.place, await self._has_initrd(name, wanted["kernel"])
        files = place.files(wanted, has_initrd)
        texts = (config.dumps(one) for one in (wanted, config.configuration(wanted, files), wanted["metadata"]))
        found = await self._script(
            scripts.START, place.definition(name), place.running(name), place.socket(name), place.jail(name),
            place.user, scripts.SUPERVISE, *config.taps(wanted), *place.shown(wanted, has_initrd, snapshot), "--",
            *place.argv(name, configured=not snapshot), stdin="".join(f"{one}\n" for one in texts).encode(),
            check=False,
        )  # fmt: skip
        if found.exit_code != 0:
            raise self.refused(name, "starting", found)
        if not snapshot:
            await self._booted(name)
        return found.stdout.strip() == scripts.CHANGED

    async def _booted(self, name: str) -> None:
        """Wait until the VMM has taken its configuration. Raise HostFault, with what it said, when it did not."""
        try:
            async with asyncio.timeout(_BOOT_S):
                while (await self._call(name, "GET", "/", doing="starting"))["state"] == "Not started":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except Busy as error:
            said = await self._script(scripts.WHY, self.place.definition(name), self.place.running(name), check=False)
            raise self.refused(name, "starting", said) from error
        except TimeoutError as error:
            raise Unreachable(
                f"{name} on {self._host} was not started within {_BOOT_S:g} s", subject_of(name), {},
                "see what the host is busy with",
            ) from error  # fmt: skip

    async def _cut(self, name: str) -> bool:
        found = await self._script(scripts.CUT, self.place.running(name), check=False)
        if found.exit_code != 0:
            raise self.refused(name, "cutting the power of", found)
        return found.stdout.strip() == scripts.CHANGED

    # -- the host

    async def _about(self) -> tuple[str, str, bool]:
        """Return the version of Firecracker, "" if there is none, the architecture, and whether the tools are there."""
        found = await self._script(scripts.ABOUT, self.place.program, self.place.kernels)
        version, machine, tools, *kernels = found.stdout.splitlines()
        words = (line.split() for line in kernels)
        self._kernels = {name: bool(initrd) for name, *initrd in words}
        return version if version.startswith("Firecracker") else "", machine, tools == "ready"

    async def _has_initrd(self, name: str, kernel: str) -> bool:
        if kernel not in self._kernels:
            await self._about()
        if kernel not in self._kernels:
            raise self.no_kernel(name, kernel)
        return self._kernels[kernel]

    def no_kernel(self, name: str, kernel: str) -> Invalid:
        """Return the error for a kernel that the host does not have."""
        return Invalid(
            f"{self._host} has no kernel {kernel}, which the image of {name} names", subject_of(name),
            {"kernel": kernel, "kernels": sorted(self._kernels)},
            f"put it there as {self.place.kernel(kernel)}/vmlinux, and enroll the host again",
        )  # fmt: skip
