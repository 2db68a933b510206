"""ironic-inspector, by python-ironic-inspector-client: it boots a ramdisk on a node of Ironic, which posts what it is.

What to know of it (12.5.0): a ramdisk that reports an error leaves the node waiting until the service's own timeout;
"finished" comes before the machine is off; `reprocess` answers at once, while the old run's end still stands.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import ironic_inspector_client

from core.errors import Conflict, HostFault, NotFound, RackflowError
from core.settings import DriverSettings
from core.states import MachinePower
from drivers.baremetal import ipa
from drivers.baremetal.base import BareMetal, BmcEndpoint
from drivers.baremetal.calls import Calls
from drivers.baremetal.inventory import Inventory
from drivers.baremetal.openstack_errors import log_in, translator

T = TypeVar("T")
_VERSION = "1.13"  # of its API; the server's newest is 1.18
_LOOK_EVERY_S = 1.0
_OFF_S = 60.0  # measured: 1 to 10 s after "finished"
_WITHDRAW_S = 30.0


@dataclass(frozen=True)
class Introspection:
    """How far one is. state: starting, waiting, processing, finished, error, reapplying, …; times in ISO 8601."""

    state: str
    finished: bool
    error: str
    started_at: str
    finished_at: str


class Inspector:
    """One service. node: of Ironic, its name or id. Nothing is sent before the first verb."""

    def __init__(self, endpoint: BmcEndpoint, settings: DriverSettings) -> None:
        self._endpoint, self._settings = endpoint, settings
        self._client: Any = None
        what = f"Inspector at {endpoint.address}"
        limit_s = settings.connect_timeout_s + settings.command_timeout_s
        self._calls = Calls(what, "", limit_s, translator(what, ""), threads=settings.threads_per_host)

    async def inspect(
        self, node: str, *, timeout_s: float = 1800.0, power: BareMetal | None = None
    ) -> Inventory:
        """Introspect a node, and wait until it is off where power is given. Raise as `Inspects.inspect`.

        Whatever ends it early, also being cancelled, the introspection is aborted, which powers the node off.
        """
        await self.introspect(node)
        try:
            found = await self._finished(node, timeout_s)
        except BaseException:
            await asyncio.shield(self._withdraw(node))
            raise
        if found.error:
            raise HostFault(
                f"the inspection of {node} ended with an error: {found.error}", f"host/{node}",
                {"state": found.state, "error": found.error, "started_at": found.started_at},
                "see the machine's console and its BMC, then inspect again",
            )  # fmt: skip
        inventory = ipa.parse(await self.data(node), f"host/{node}")
        if power is not None:
            await _until_off(power, node)
        return inventory

    async def _finished(self, node: str, timeout_s: float, since: str = "") -> Introspection:
        """Wait for the end of a run; since: when the one before it finished."""
        end = time.monotonic() + timeout_s
        while True:
            found = await self.status(node)
            if found.finished and found.finished_at != since:
                return found
            if time.monotonic() > end:
                raise HostFault(
                    f"the inspection of {node} did not end within {timeout_s:g} s and was aborted: its state is "
                    f"{found.state}", f"host/{node}", {"state": found.state, "started_at": found.started_at},
                    "see the machine's console: does it boot from the network, does the ramdisk report an error?",
                )  # fmt: skip
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _withdraw(self, node: str) -> None:
        with suppress(RackflowError, TimeoutError):
            async with asyncio.timeout(_WITHDRAW_S):
                await self.abort(node)

    async def introspect(self, node: str) -> None:
        """Begin. Raise Conflict (one is under way), NotFound (no such node)."""
        await self._call(f"introspecting {node}", lambda client: client.introspect(node))

    async def status(self, node: str) -> Introspection:
        """Return how far the last one is. Raise NotFound (there was none)."""
        found = await self._call(f"asking for the state of {node}", lambda client: client.get_status(node))
        words = (found.get(key) or "" for key in ("error", "started_at", "finished_at"))
        return Introspection(found.get("state") or "", bool(found["finished"]), *words)

    async def abort(self, node: str) -> bool:
        """End one that is under way; its machine is powered off. False: there is none."""
        try:
            if (await self.status(node)).finished:
                return False
            await self._call(f"aborting the inspection of {node}", lambda client: client.abort(node))
        except (NotFound, Conflict):  # it ended by itself
            return False
        return True

    async def data(self, node: str, *, processed: bool = True) -> dict[str, Any]:
        """Return what the ramdisk posted, with what rules and hooks made of it or raw. Raise NotFound (nothing yet)."""
        doing = f"reading the data of {node}"
        return dict(await self._call(doing, lambda client: client.get_data(node, processed=processed)))

    async def reprocess(self, node: str, *, timeout_s: float = 60.0) -> Introspection:
        """Let hooks and rules go over the raw data once more; return how that ended."""
        before = await self.status(node)
        await self._call(f"reprocessing {node}", lambda client: client.reprocess(node))
        return await self._finished(node, timeout_s, before.finished_at)

    async def rules(self) -> list[dict[str, Any]]:
        """Return the rules, whole."""

        def all_of(client: Any) -> list[dict[str, Any]]:
            return [client.rules.get(rule["uuid"]) for rule in client.rules.get_all()]

        return await self._call("reading the rules", all_of)

    async def set_rules(self, rules: Sequence[Mapping[str, Any]]) -> bool:
        """Ensure that these are the rules, told apart by description. Raise Invalid (one is wrong)."""
        known = {rule["description"]: rule for rule in await self.rules()}
        wanted: dict[str, Mapping[str, Any]] = {rule["description"]: rule for rule in rules}
        gone = [known[key]["uuid"] for key in known if key not in wanted or not _same(known[key], wanted[key])]
        new = [wanted[key] for key in wanted if key not in known or not _same(known[key], wanted[key])]

        def change(client: Any) -> None:
            for uuid in gone:
                client.rules.delete(uuid)
            for rule in new:
                client.rules.from_json(dict(rule))

        if gone or new:
            await self._call("changing the rules", change)
        return bool(gone or new)

    async def close(self) -> None:
        """Let the threads go."""
        self._calls.close()

    async def _call(self, doing: str, work: Callable[[Any], T]) -> T:
        return await self._calls(doing, lambda: work(self._logged_in()))

    def _logged_in(self) -> Any:
        if self._client is None:
            self._client = ironic_inspector_client.ClientV1(
                session=log_in(self._endpoint, self._settings), inspector_url=self._endpoint.address,
                api_version=_VERSION,
            )  # fmt: skip
        return self._client


def _same(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Compare rules; the service adds what was left out."""
    return all(
        len(known[part]) == len(wanted[part])
        and all(want.items() <= have.items() for have, want in zip(known[part], wanted[part], strict=True))
        for part in ("conditions", "actions")
    )


async def _until_off(power: BareMetal, node: str) -> None:
    end = time.monotonic() + _OFF_S
    while await power.power() is not MachinePower.OFF:
        if time.monotonic() > end:
            raise HostFault(
                f"{node} was inspected, and is not off {_OFF_S:g} s later", f"host/{node}", {}, "look at the machine"
            )
        await asyncio.sleep(_LOOK_EVERY_S)
