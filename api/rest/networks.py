"""/v1/networks"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api import models
from api.auth import Caller
from api.bodies import NewNetwork
from api.context import Ctx, Name
from control import networks

router = APIRouter(prefix="/networks", tags=["networks"])


@router.get("", response_model=list[models.Network])
async def list_networks(ctx: Ctx, caller: Caller, name: Name = None) -> JSONResponse:
    """List networks, by name."""
    return JSONResponse(await ctx.store.read(lambda c: networks.list_(c, caller, name=name)))


@router.post("", status_code=201, response_model=models.NetworkShown)
async def ensure_network(ctx: Ctx, caller: Caller, body: NewNetwork) -> JSONResponse:
    """Make a virtual network, or give the one of that name these values. 201 if that changed anything, else 200."""
    row_id, changed = await ctx.store.write(lambda c: networks.ensure(c, caller, body))
    if changed:
        ctx.wake()  # deploys may wait for it
    shown = await ctx.store.read(lambda c: networks.show(c, caller, row_id))
    return JSONResponse(shown, 201 if changed else 200)


@router.get("/{name}", response_model=models.NetworkShown)
async def show_network(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show a network."""
    return JSONResponse(await ctx.store.read(lambda c: networks.show(c, caller, name)))


@router.delete("/{name}", response_model=models.Deleted)
async def delete_network(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Take away a network that no instance uses; bridges on hosts stay."""
    await ctx.store.write(lambda c: networks.delete(c, caller, networks.show(c, caller, name)["name"]))
    return JSONResponse({"deleted": name})
