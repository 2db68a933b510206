"""/v1/instances"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from api import guests, history_models, ledger_models, models
from api.accept import Key, accept
from api.auth import Caller
from api.bodies import Exec, Instances, as_list
from api.context import PAGE, After, Ctx, Labels, Limit, Name, State, page
from control import decisions, instances
from control.access import sees_all
from core.errors import NotFound
from core.states import Verb

router = APIRouter(prefix="/instances", tags=["instances"])
Tail = Annotated[int | None, Query(ge=1, le=100_000, description="only the last lines")]


@router.get("", response_model=list[models.Instance])
async def list_instances(
    request: Request, ctx: Ctx, caller: Caller, labels: Labels, name: Name = None, state: State = None,
    host: str | None = None, limit: Limit = PAGE, after: After = None,
) -> JSONResponse:  # fmt: skip
    """List instances, oldest first; users see their own."""
    rows = await ctx.store.read(
        lambda c: instances.list_(
            c, caller, name=name, state=state, host=host, labels=labels, limit=limit, after=after
        )
    )
    return page(request, rows, limit)


@router.post("", status_code=202, response_model=ledger_models.Accepted)
async def create_instances(
    ctx: Ctx, caller: Caller, body: Instances,
    hold: Annotated[bool, Query(description="not placed before they are released")] = False, key: Key = None,
) -> JSONResponse:  # fmt: skip
    """Ask for an instance, or for a list of them: one operation each."""
    wanted = {"instances": as_list(body)}
    return await accept(ctx, caller, Verb.DEPLOY, {**wanted, "hold": True} if hold else wanted, key)


@router.get("/{name}", response_model=models.InstanceShown)
async def show_instance(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show a live instance by name, or any by id."""
    return JSONResponse(await ctx.store.read(lambda c: instances.show(c, caller, name)))


@router.delete("/{name}", status_code=202, response_model=ledger_models.Accepted)
async def delete_instance(
    ctx: Ctx, caller: Caller, name: str, grace_s: Annotated[float | None, Query(ge=0, le=3600)] = None,
    key: Key = None,
) -> JSONResponse:  # fmt: skip
    """Ask for an instance to be deleted with its disks; what is under way for it is cancelled first."""
    wanted: dict[str, Any] = {"instances": [name]}
    return await accept(ctx, caller, Verb.DELETE, wanted if grace_s is None else {**wanted, "grace_s": grace_s}, key)


@router.post("/{name}/exec", response_model=models.Executed)
async def exec_in_instance(ctx: Ctx, caller: Caller, name: str, body: Exec) -> JSONResponse:
    """Run a command inside a running instance and return how it ended."""
    done = await guests.run(ctx, caller, name, body.argv, body.timeout_s, body.stdin)
    return JSONResponse({"exit_status": done.exit_code, "stdout": done.stdout, "stderr": done.stderr})


@router.get("/{name}/logs", response_model=models.Logs)
async def instance_logs(ctx: Ctx, caller: Caller, name: str, tail: Tail = None) -> JSONResponse:
    """Return the end of an instance's console log (1 MiB at most)."""
    return JSONResponse({"text": await guests.console(ctx, caller, name, tail)})


@router.get("/{name}/explain")
async def explain_instance(ctx: Ctx, caller: Caller, name: str) -> dict[str, Any]:
    """Return the record of the newest decision on where to place it: for every host why, or why not."""
    return await ctx.store.read(lambda c: decisions.newest(c, instances.id_of(c, caller, name)))


@router.get("/{name}/history", response_model=history_models.History)
async def instance_history(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Return what happened to an instance, also one that is gone: by id, or by the name it bore last."""
    try:
        wanted = await ctx.store.read(lambda c: instances.id_of(c, caller, name))
    except NotFound:
        wanted = name
    found = await asyncio.to_thread(ctx.analytics.history, wanted)
    if not sees_all(caller) and found["owner"] != caller.name:
        raise NotFound(
            f"there is no history of an instance {name}", f"instance/{name}", {}, "rackflow instance list shows them"
        )
    return JSONResponse(found)

