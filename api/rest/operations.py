"""/v1/operations and /v1/requests"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from api import ledger_models
from api.auth import Caller
from api.context import After, Ctx, Limit, State, page
from control import eta, operations, recovery, requests
from core.clock import now
from core.errors import Invalid

router = APIRouter(tags=["operations"])
IDS_MAX = 1000
Steps = Annotated[bool, Query(description="with the steps of each")]
Ids = Annotated[str | None, Query(description="only these: ids with commas between")]


@router.get("/operations", response_model=list[ledger_models.Operation])
async def list_operations(
    request: Request, ctx: Ctx, caller: Caller, ids: Ids = None, state: State = None, verb: str | None = None,
    subject: Annotated[str | None, Query(description="instance/ID, or a name")] = None, steps: Steps = False,
    looks: Annotated[bool, Query(description="false: without looks at hosts that went well")] = True,
    limit: Limit = 50, after: After = None,
) -> JSONResponse:  # fmt: skip
    """List operations, the newest first; with `ids` all of those."""
    wanted = None if ids is None else _few([one for one in ids.split(",") if one])
    most = limit if wanted is None else len(wanted)
    rows = await ctx.store.read(
        lambda c: operations.list_(
            c, caller, ids=wanted, state=state, verb=verb, subject=subject, steps=steps, looks=looks, limit=most,
            after=after, newest_first=True,
        )
    )  # fmt: skip
    return page(request, rows, limit) if wanted is None else JSONResponse(rows)


@router.get("/operations/eta", response_model=list[ledger_models.Eta])
async def eta_of_operations(
    ctx: Ctx, caller: Caller, ids: Annotated[str, Query(description="ids with commas between")]
) -> JSONResponse:
    """Return when those of some operations that run will be done, by what their steps usually take."""
    wanted = _few([one for one in ids.split(",") if one])
    found = await ctx.store.read(lambda c: eta.steps_left(c, caller, wanted))
    asked = [asdict(step) for steps in found.values() for step in steps]
    told = iter(await asyncio.to_thread(ctx.analytics.eta, [_without_time(step) for step in asked]))
    at = now()
    left = {key: eta.seconds_left(steps, [next(told) for _ in steps], at) for key, steps in found.items()}
    return JSONResponse([
        {"id": key, "left_s": seconds and round(seconds[0], 3), "left_p95_s": seconds and round(seconds[1], 3)}
        for key, seconds in left.items()
    ])  # fmt: skip


def _without_time(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != "started_at"}


def _few(ids: list[str]) -> list[str]:
    if len(ids) > IDS_MAX:
        raise Invalid(f"{len(ids)} ids are more than {IDS_MAX}", "request", fix="ask in several requests")
    return ids


@router.get("/operations/{operation_id}", response_model=ledger_models.Operation)
async def show_operation(ctx: Ctx, caller: Caller, operation_id: str) -> JSONResponse:
    """Show an operation with its steps."""
    return JSONResponse(await ctx.store.read(lambda c: operations.show(c, caller, operation_id)))


@router.post("/operations/{operation_id}/cancel", response_model=ledger_models.Operation)
async def cancel_operation(ctx: Ctx, caller: Caller, operation_id: str) -> JSONResponse:
    """Cancel an operation: at once if nobody runs it yet, else what it did is undone."""
    await ctx.store.write(lambda c: operations.cancel(c, caller, operation_id))
    ctx.wake()
    return await show_operation(ctx, caller, operation_id)


@router.post("/operations/{operation_id}/retry", response_model=ledger_models.Operation)
async def retry_operation(ctx: Ctx, caller: Caller, operation_id: str) -> JSONResponse:
    """Let an operation that is held, or failed for a reason that may pass, go on where it stopped."""
    await ctx.store.write(lambda c: recovery.retry(c, caller, operation_id))
    ctx.wake()
    return await show_operation(ctx, caller, operation_id)


@router.post("/operations/{operation_id}/abandon", response_model=ledger_models.Operation)
async def abandon_operation(ctx: Ctx, caller: Caller, operation_id: str) -> JSONResponse:
    """Give up an operation that is held: what it did is undone."""
    await ctx.store.write(lambda c: recovery.abandon(c, caller, operation_id))
    ctx.wake()
    return await show_operation(ctx, caller, operation_id)


@router.get("/requests", response_model=list[ledger_models.RequestRow])
async def list_requests(
    request: Request, ctx: Ctx, caller: Caller, limit: Limit = 50, after: After = None
) -> JSONResponse:
    """List requests, the newest first, with the number of their operations."""
    rows = await ctx.store.read(lambda c: requests.list_(c, caller, limit=limit, after=after))
    return page(request, rows, limit)


@router.get("/requests/{request_id}", response_model=ledger_models.Request)
async def show_request(ctx: Ctx, caller: Caller, request_id: str, steps: Steps = False) -> JSONResponse:
    """Show a request with its operations."""
    return JSONResponse(await ctx.store.read(lambda c: requests.show(c, caller, request_id, steps=steps)))
