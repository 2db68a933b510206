"""/v1/schedules"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from api import models
from api.auth import Caller
from api.bodies import Enabled, NewSchedule
from api.context import Ctx
from control import schedules

router = APIRouter(prefix="/schedules", tags=["schedules"])


@router.get("", response_model=list[models.Schedule])
async def list_schedules(
    ctx: Ctx, caller: Caller, instance: Annotated[str | None, Query(description="only of this one")] = None
) -> JSONResponse:
    """List schedules, oldest first; users see those of their own instances."""
    return JSONResponse(await ctx.store.read(lambda c: schedules.list_(c, caller, instance=instance)))


@router.post("", status_code=201, response_model=models.Schedule)
async def add_schedule(ctx: Ctx, caller: Caller, body: NewSchedule) -> JSONResponse:
    """Ask for a verb at a time, again and again, or some time after each start of an instance."""
    made = await ctx.store.write(
        lambda c: schedules.create(
            c, caller, body.instance, body.verb, body.parameters, at=body.at, every_s=body.every_s,
            after_start_s=body.after_start_s,
        )
    )  # fmt: skip
    return JSONResponse(made, 201)


@router.get("/{schedule_id}", response_model=models.Schedule)
async def show_schedule(ctx: Ctx, caller: Caller, schedule_id: str) -> JSONResponse:
    """Show a schedule, with what came of it last."""
    return JSONResponse(await ctx.store.read(lambda c: schedules.get(c, caller, schedule_id)))


@router.patch("/{schedule_id}", response_model=models.Schedule)
async def enable_schedule(ctx: Ctx, caller: Caller, schedule_id: str, body: Enabled) -> JSONResponse:
    """Let a schedule run, or rest; what it misses at rest is not made up for."""
    await ctx.store.write(lambda c: schedules.set_enabled(c, caller, schedule_id, body.enabled))
    return await show_schedule(ctx, caller, schedule_id)


@router.delete("/{schedule_id}", response_model=models.Deleted)
async def remove_schedule(ctx: Ctx, caller: Caller, schedule_id: str) -> JSONResponse:
    """Take a schedule away."""
    await ctx.store.write(lambda c: schedules.delete(c, caller, schedule_id))
    return JSONResponse({"deleted": schedule_id})
