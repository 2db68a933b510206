"""What a host lacks to be what it was told to be, as it is seen now; nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from api.context import Context
from control import hosts
from control.accept.host import require_configurable
from drivers.transport.base import Endpoint


async def plan(ctx: Context, name: str) -> dict[str, Any]:
    """Return actions (in words) and notes. Raise NotFound, Unsupported, Conflict, Unreachable, HostFault."""
    from drivers import role, role_plan  # asyncssh takes 0.2 s to import

    host = await ctx.store.read(lambda c: hosts.get(c, name))
    want = role.role_of(host.spec, require_configurable(host))
    key = Path(host.key_file) if host.key_file else ctx.settings.paths.ssh_key
    endpoint = Endpoint(host.name, host.address, host.port, host.user, key, host.host_key)
    found = role_plan.plan(await role.look(await ctx.pool.transport(endpoint), want), want)
    return {
        "host": host.name, "actions": [action.words for action in found.actions], "notes": list(found.notes),
        "complete": found.complete,
    }  # fmt: skip
