"""/v1/health, /v1/status, /v1/reconcile and /v1/drift: the whole of it."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from api import ledger_models, models
from api.accept import Key, accept
from api.auth import Caller
from api.bodies import OnHosts, Policy
from api.context import PAGE, Context, Ctx, Limit
from control import drift, overview
from core.clock import rfc3339
from core.errors import RackflowError
from core.states import Verb

router = APIRouter(tags=["cloud"])
VERSION = version("rackflow")


@router.get("/health", response_model=models.Health)
async def health(ctx: Ctx) -> JSONResponse:
    """Say that the API runs and its database answers; needs no token."""
    await ctx.store.read(lambda c: c.closed)
    return JSONResponse({"status": "ok", "version": VERSION})


@router.get("/status", response_model=models.Status)
async def status(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Return the state of the processes, and how many hosts, instances and unfinished operations there are."""
    counts = await ctx.store.read(overview.counts)
    try:
        history = await asyncio.to_thread(ctx.analytics.status)
    except RackflowError as error:
        history = {"error": error.to_dict()}
    return JSONResponse({
        "version": VERSION, "started_at": rfc3339(ctx.started_at), "processes": _processes(ctx), **counts,
        "history": history,
    })  # fmt: skip


@router.post("/reconcile", status_code=202, response_model=ledger_models.Accepted)
async def reconcile(ctx: Ctx, caller: Caller, body: OnHosts | None = None, key: Key = None) -> JSONResponse:
    """Ask for record and world to be compared now, on some hosts or on all."""
    return await accept(ctx, caller, Verb.RECONCILE, {"hosts": body.hosts if body else []}, key)


@router.get("/drift", response_model=list[models.Drift])
async def list_drift(
    ctx: Ctx, caller: Caller, host: str | None = None,
    state: Annotated[Literal["open", "repaired", "gone", "all"], Query()] = "open", limit: Limit = PAGE,
) -> JSONResponse:  # fmt: skip
    """List where the world was found to differ from the record; users see that of their own instances."""
    wanted = None if state == "all" else state
    return JSONResponse(await ctx.store.read(lambda c: drift.list_(c, caller, state=wanted, host=host, limit=limit)))


@router.get("/drift/{drift_id}", response_model=models.Drift)
async def show_drift(ctx: Ctx, caller: Caller, drift_id: str) -> JSONResponse:
    """Show one difference, open or closed."""
    return JSONResponse(await ctx.store.read(lambda c: drift.get(c, caller, drift_id)))


@router.patch("/drift/{drift_id}", response_model=models.Drift)
async def set_drift_policy(ctx: Ctx, caller: Caller, drift_id: str, body: Policy) -> JSONResponse:
    """Choose what is done about a difference that is open."""
    await ctx.store.write(lambda c: drift.set_policy(c, caller, drift_id, body.policy))
    return await show_drift(ctx, caller, drift_id)


def _processes(ctx: Context) -> list[dict[str, Any]]:
    """Return what the supervisor wrote of the processes; nothing when none supervises this one."""
    try:
        found = json.loads((ctx.settings.paths.run_dir / "status.json").read_text())
    except (OSError, ValueError):
        return []
    return list(found.get("processes", []))
