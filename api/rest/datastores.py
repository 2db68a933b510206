"""/v1/datastores"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api import models
from api.auth import Caller
from api.bodies import NewDatastore
from api.context import Ctx, Name
from control import datastores

router = APIRouter(prefix="/datastores", tags=["datastores"])


@router.get("", response_model=list[models.Datastore])
async def list_datastores(ctx: Ctx, caller: Caller, name: Name = None) -> JSONResponse:
    """List datastores, by name."""
    return JSONResponse(await ctx.store.read(lambda c: datastores.list_(c, caller, name=name)))


@router.post("", status_code=201, response_model=models.Datastore)
async def ensure_datastore(ctx: Ctx, caller: Caller, body: NewDatastore) -> JSONResponse:
    """Make a datastore, or give the one of that name these values. 201 if that changed anything, else 200."""
    row_id, changed = await ctx.store.write(lambda c: datastores.ensure(c, caller, body))
    if changed:
        ctx.wake()  # deploys may wait for it
    shown = await ctx.store.read(lambda c: datastores.show(c, caller, row_id))
    return JSONResponse(shown, 201 if changed else 200)


@router.get("/{name}", response_model=models.Datastore)
async def show_datastore(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show a datastore."""
    return JSONResponse(await ctx.store.read(lambda c: datastores.show(c, caller, name)))


@router.delete("/{name}", response_model=models.Deleted)
async def delete_datastore(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Forget a datastore that holds no volume; files on hosts stay."""
    await ctx.store.write(lambda c: datastores.delete(c, caller, datastores.show(c, caller, name)["name"]))
    return JSONResponse({"deleted": name})
