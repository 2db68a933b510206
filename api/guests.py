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
from core.ids import on_host
from core.states import InstanceState
from drivers.transport.base import Endpoint

if TYPE_CHECKING:
    from drivers.hypervisor.base import ExecResult, Hypervisor
    from drivers.hypervisor.powers import ConsoleLogs, Executes

LOG_BYTES = 2**20


async def run(
    ctx: Context, caller: Principal, name: str, argv: Sequence[str], timeout_s: float, stdin: str
) -> ExecResult:
    """Run argv inside an instance. Raise NotFound, Conflict (not running), Unsupported, Unreachable."""
    instance = await _find(ctx, caller, name)
    if instance.state is not InstanceState.RUNNING:
        raise Conflict(
            f"instance {instance.name} is {instance.state}, so nothing can run in it", f"instance/{instance.name}",
            {"state": instance.state}, f"rackflow instance start {instance.name}",
        )  # fmt: skip
    hypervisor = cast("Executes", await _hypervisor(ctx, instance, "exec"))
    return await hypervisor.exec(on_host(instance.id), argv, timeout_s=timeout_s, stdin=stdin.encode())


async def console(ctx: Context, caller: Principal, name: str, tail: int | None) -> str:
    """Return the last lines of an instance's console. Raise NotFound, Conflict (not placed), Unsupported."""
    instance = await _find(ctx, caller, name)
    hypervisor = cast("ConsoleLogs", await _hypervisor(ctx, instance, "console_log"))
    text = await hypervisor.console_log(on_host(instance.id), max_bytes=LOG_BYTES)
    return text if tail is None else "".join(text.splitlines(keepends=True)[-tail:])


async def _find(ctx: Context, caller: Principal, name: str) -> Deployable:
    found = await ctx.store.read(lambda c: instances.deployables(c, [instances.id_of(c, caller, name)]))
    return next(iter(found.values()))


async def _hypervisor(ctx: Context, instance: Deployable, power: str) -> Hypervisor:
    host = instance.host
    if host is None:
        raise Conflict(
            f"instance {instance.name} is {instance.state} and on no host", f"instance/{instance.name}",
            {"state": instance.state, "reason": instance.reason},
        )  # fmt: skip
    if not host.capabilities.get(power):
        raise Unsupported(
            f"host {host.name} ({host.driver}) has no {power.replace('_', ' ')}", f"host/{host.name}",
            {"capabilities": host.capabilities},
        )  # fmt: skip
    return (await ctx.pool.get(host.driver, _endpoint(ctx, host))).hypervisor


def _endpoint(ctx: Context, host: HostRecord) -> Endpoint:
    key = Path(host.key_file) if host.key_file else ctx.settings.paths.ssh_key
    return Endpoint(host.name, host.address, host.port, host.user, key, host.host_key)
