"""/v1/instances/{name}/snapshots and backups, /v1/backups: what an instance can go back to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from api import ledger_models, models
from api.accept import Key, accept
from api.auth import Caller
from api.context import Ctx
from control import backups, instances, snapshots
from core.states import Verb

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


@router.post("/backups/{backup_id}/test", status_code=202, response_model=ledger_models.Accepted)
async def verify_backup(ctx: Ctx, caller: Caller, backup_id: str, key: Key = None) -> JSONResponse:
    """Ask for a backup to be read and put together, to see that it is whole."""
    return await accept(ctx, caller, Verb.TEST_BACKUP, {"backups": [backup_id]}, key)


@router.delete("/backups/{backup_id}", status_code=202, response_model=ledger_models.Accepted)
async def drop_backup(ctx: Ctx, caller: Caller, backup_id: str, key: Key = None) -> JSONResponse:
    """Ask for a backup to be deleted; one that others go on from cannot be."""
    return await accept(ctx, caller, Verb.DROP_BACKUP, {"backups": [backup_id]}, key)
