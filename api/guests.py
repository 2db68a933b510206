"""Into a running instance: a command, its console's log. Over the API process's own connection to the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from api.context import Context
from control import instances
from control.access import Principal
from control.hosts import HostRecord
from control.instances import Deployable
from core.errors import Conflict, Unsupported
from core.states import InstanceState
from drivers.transport.base import Endpoint, Way

if TYPE_CHECKING:
    from drivers.hypervisor.base import ExecResult, Hypervisor
    from drivers.hypervisor.powers import ConsoleLogs, Executes

LOG_BYTES = 2**20


async def run(
    ctx: Context, caller: Principal, name: str, argv: Sequence[str], timeout_s: float, stdin: str
) -> ExecResult:
    """Run argv inside an instance. Raise NotFound, Conflict (not running), Unsupported, Unreachable."""
    instance = await find(ctx, caller, name)
    if instance.state is not InstanceState.RUNNING:
        raise Conflict(
            f"instance {instance.name} is {instance.state}, so nothing can run in it", f"instance/{instance.name}",
            {"state": instance.state}, f"rackflow instance start {instance.name}",
        )  # fmt: skip
    driver = cast("Executes", await hypervisor(ctx, instance, "exec"))
    return await driver.exec(instance.on_host, argv, timeout_s=timeout_s, stdin=stdin.encode())


async def console(ctx: Context, caller: Principal, name: str, tail: int | None) -> str:
    """Return the last lines of an instance's console. Raise NotFound, Conflict (not placed), Unsupported."""
    instance = await find(ctx, caller, name)
    driver = cast("ConsoleLogs", await hypervisor(ctx, instance, "console_log"))
    text = await driver.console_log(instance.on_host, max_bytes=LOG_BYTES)
    return text if tail is None else "".join(text.splitlines(keepends=True)[-tail:])


async def find(ctx: Context, caller: Principal, name: str) -> Deployable:
    """Return an instance that the caller may see. Raise NotFound."""
    found = await ctx.store.read(lambda c: instances.deployables(c, [instances.id_of(c, caller, name)]))
    return next(iter(found.values()))


def host_of(instance: Deployable, power: str) -> HostRecord:
    """Return the host that an instance is on. Raise Conflict (on none), Unsupported (it has not that power)."""
    host = instance.host
    if host is None:
        raise Conflict(
            f"instance {instance.name} is {instance.state} and on no host", f"instance/{instance.name}",
            {"state": instance.state, "reason": instance.reason},
        )  # fmt: skip
    require_power(host, power)
    return host


def require_power(host: HostRecord, power: str) -> None:
    """Raise Unsupported when a host's driver cannot do this."""
    if not host.capabilities.get(power):
        why = host.capabilities.get("why_not", {}).get(power)
        raise Unsupported(
            f"host {host.name} ({host.driver}) has no {power.replace('_', ' ')}{f': {why}' if why else ''}",
            f"host/{host.name}", {"capabilities": host.capabilities},
        )  # fmt: skip


async def hypervisor(ctx: Context, instance: Deployable, power: str) -> Hypervisor:
    """Return the hypervisor of an instance's host. Raise Conflict, Unsupported, Unreachable."""
    return await hypervisor_of(ctx, host_of(instance, power))


async def hypervisor_of(ctx: Context, host: HostRecord) -> Hypervisor:
    """Return a host's hypervisor. Raise Unreachable, CredentialRejected."""
    return (await ctx.pool.get(host.driver, _endpoint(ctx, host))).hypervisor


def _endpoint(ctx: Context, host: HostRecord) -> Endpoint:
    key = Path(host.key_file) if host.key_file else ctx.settings.paths.ssh_key
    way = Way.of(host.spec, host.address, ctx.settings.paths.ssh_key)
    return Endpoint(host.name, host.address, host.port, host.user, key, host.host_key, host.place, way)
