"""/v1/instances/{name}/snapshots and backups, /v1/backups: what an instance can go back to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from api import models
from api.auth import Caller
from api.context import Ctx
from control import backups, instances, snapshots

router = APIRouter(tags=["instances"])


@router.get("/instances/{name}/snapshots", response_model=list[models.SnapshotShown])
async def list_snapshots(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """List an instance's snapshots, oldest first."""
    return JSONResponse(await ctx.store.read(lambda c: snapshots.list_(c, instances.id_of(c, caller, name))))


@router.get("/instances/{name}/backups", response_model=list[models.BackupShown])
async def list_backups_of_instance(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """List an instance's backups, oldest first."""
    rows = await ctx.store.read(lambda c: backups.list_(c, caller, instance=instances.id_of(c, caller, name)))
    return JSONResponse(rows)


@router.get("/backups", response_model=list[models.BackupShown])
async def list_backups(
    ctx: Ctx, caller: Caller,
    instance: Annotated[str | None, Query(description="name or id, also a deleted one's")] = None,
) -> JSONResponse:  # fmt: skip
    """List backups, oldest first, also those of instances that are deleted; users see those of their own."""
    return JSONResponse(await ctx.store.read(lambda c: backups.list_(c, caller, instance=instance)))
