"""/v1/hosts"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from api import configuration, foreign, ledger_models, models
from api.accept import Key, accept
from api.auth import Caller
from api.bodies import Hosts, as_list
from api.context import PAGE, After, Ctx, Labels, Limit, Name, State, page
from blueprints.common import Spec
from blueprints.host_change import Adopt, Evacuate, Fence
from control import hosts
from control.access import require
from core.states import Verb

router = APIRouter(prefix="/hosts", tags=["hosts"])


@router.get("", response_model=list[models.Host])
async def list_hosts(
    request: Request, ctx: Ctx, caller: Caller, labels: Labels, name: Name = None, state: State = None,
    cluster: str | None = None, limit: Limit = PAGE, after: After = None,
) -> JSONResponse:  # fmt: skip
    """List hosts with what is reserved on them, oldest first."""
    rows = await ctx.store.read(
        lambda c: hosts.list_(
            c, caller, name=name, state=state, cluster=cluster, labels=labels, limit=limit, after=after
        )
    )
    return page(request, rows, limit)


@router.post("", status_code=202, response_model=ledger_models.Accepted)
async def enroll_hosts(ctx: Ctx, caller: Caller, body: Hosts, key: Key = None) -> JSONResponse:
    """Ask for machines to be enrolled. Without a fingerprint the key that a machine shows is trusted and pinned."""
    return await accept(ctx, caller, Verb.ENROLL, {"hosts": as_list(body)}, key)


@router.get("/scan", response_model=models.HostKey)
async def scan_host(
    caller: Caller, address: str, port: Annotated[int, Query(ge=1, le=65535)] = 22,
    driver: Annotated[str, Query(description="esxi: its API's certificate; others may show nothing: empty")] = "",
) -> JSONResponse:  # fmt: skip
    """Return the host key or certificate that a machine shows, before it is enrolled."""
    require(caller, Verb.ENROLL, None, "hosts")
    from drivers.identity import show  # asyncssh takes 0.2 s to import

    key = await show(driver, address, port)
    return JSONResponse({"algorithm": key.algorithm, "public": key.public, "fingerprint": key.fingerprint})


@router.get("/{name}", response_model=models.HostShown)
async def show_host(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show a host with facts, capabilities, datastores and networks."""
    return JSONResponse(await ctx.store.read(lambda c: hosts.show(c, caller, name)))


@router.post("/{name}/enable", response_model=models.Changed)
async def enable_host(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Let a host take placements again."""
    changed = await ctx.store.write(lambda c: hosts.enable(c, caller, name))
    ctx.wake()  # deploys may wait for room
    return JSONResponse({"changed": changed})


@router.post("/{name}/disable", response_model=models.Changed)
async def disable_host(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Place nothing more on a host; what runs there goes on."""
    return JSONResponse({"changed": await ctx.store.write(lambda c: hosts.disable(c, caller, name))})


@router.post("/{name}/maintenance", response_model=models.Changed)
async def maintain_host(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Let an administrator work on a host: no placements, no repairs, no alarm until it is enabled."""
    return JSONResponse({"changed": await ctx.store.write(lambda c: hosts.maintain(c, caller, name))})


@router.post("/{name}/evacuate", status_code=202, response_model=ledger_models.Accepted)
async def evacuate_host(
    ctx: Ctx, caller: Caller, name: str, body: Evacuate | None = None, key: Key = None
) -> JSONResponse:
    """Ask for a host to be emptied: what it holds moves to others, and nothing more is placed there."""
    return await accept(ctx, caller, Verb.EVACUATE, {"hosts": [name], **_given(body)}, key)


@router.get("/{name}/configuration", response_model=models.Configuration)
async def show_configuration(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Look what a host lacks to be what it was told to be; nothing is changed."""
    require(caller, Verb.CONFIGURE, None, f"host/{name}")
    return JSONResponse(await configuration.plan(ctx, name))


@router.post("/{name}/configure", status_code=202, response_model=ledger_models.Accepted)
async def configure_host(ctx: Ctx, caller: Caller, name: str, key: Key = None) -> JSONResponse:
    """Ask for a host to be configured over SSH: packages, services, kernel, bridges; what is right is left alone."""
    return await accept(ctx, caller, Verb.CONFIGURE, {"hosts": [name]}, key)


@router.post("/{name}/fence", status_code=202, response_model=ledger_models.Accepted)
async def fence_host(ctx: Ctx, caller: Caller, name: str, body: Fence | None = None, key: Key = None) -> JSONResponse:
    """Ask for the power of a dead host to be cut, so that its instances may start elsewhere; administrators only."""
    return await accept(ctx, caller, Verb.FENCE, {"hosts": [name], **_given(body)}, key)


@router.post("/{name}/sleep", status_code=202, response_model=ledger_models.Accepted)
async def sleep_host(ctx: Ctx, caller: Caller, name: str, key: Key = None) -> JSONResponse:
    """Ask for a host that holds nothing to be switched off until it is needed; it needs a BMC."""
    return await accept(ctx, caller, Verb.SLEEP, {"hosts": [name]}, key)


@router.post("/{name}/wake", status_code=202, response_model=ledger_models.Accepted)
async def wake_host(ctx: Ctx, caller: Caller, name: str, key: Key = None) -> JSONResponse:
    """Ask for a host that is asleep to be switched on; it is ready when its hypervisor answers."""
    return await accept(ctx, caller, Verb.WAKE, {"hosts": [name]}, key)


@router.post("/{name}/adopt", status_code=202, response_model=ledger_models.Accepted)
async def adopt_instances(ctx: Ctx, caller: Caller, name: str, body: Adopt, key: Key = None) -> JSONResponse:
    """Ask for instances that run on a host already to become ours; they are not touched."""
    return await accept(ctx, caller, Verb.ADOPT, {"hosts": [name], **_given(body)}, key)


@router.get("/{name}/foreign", response_model=list[models.Foreign])
async def foreign_instances(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Look which instances of a host are not ours, and whether they could be adopted."""
    require(caller, Verb.ADOPT, None, f"host/{name}")
    return JSONResponse(await foreign.list_(ctx, name))


@router.delete("/{name}", status_code=202, response_model=ledger_models.Accepted)
async def retire_host(
    ctx: Ctx, caller: Caller, name: str,
    force: Annotated[bool, Query(description="even if instances are on it: they are forgotten")] = False,
    key: Key = None,
) -> JSONResponse:  # fmt: skip
    """Ask for a host to be taken out."""
    return await accept(ctx, caller, Verb.RETIRE, {"hosts": [name], "force": force}, key)


def _given(body: Spec | None) -> dict[str, Any]:
    return {} if body is None else body.model_dump(mode="json", exclude_unset=True)
