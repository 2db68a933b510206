"""/v1/clusters"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api import models
from api.auth import Caller
from api.bodies import NewCluster
from api.context import Ctx, Name
from control import clusters

router = APIRouter(prefix="/clusters", tags=["clusters"])


@router.get("", response_model=list[models.Cluster])
async def list_clusters(ctx: Ctx, caller: Caller, name: Name = None) -> JSONResponse:
    """List clusters, by name."""
    return JSONResponse(await ctx.store.read(lambda c: clusters.list_(c, caller, name=name)))


@router.post("", status_code=201, response_model=models.Cluster)
async def ensure_cluster(ctx: Ctx, caller: Caller, body: NewCluster) -> JSONResponse:
    """Make a cluster, or give the one of that name these values. 201 if that changed anything, else 200."""
    row_id, changed = await ctx.store.write(lambda c: clusters.ensure(c, caller, body))
    if changed:
        ctx.wake()  # deploys may wait for it
    shown = await ctx.store.read(lambda c: clusters.show(c, caller, row_id))
    return JSONResponse(shown, 201 if changed else 200)


@router.get("/{name}", response_model=models.Cluster)
async def show_cluster(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show a cluster."""
    return JSONResponse(await ctx.store.read(lambda c: clusters.show(c, caller, name)))


@router.delete("/{name}", response_model=models.Deleted)
async def delete_cluster(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Take away a cluster that holds nothing."""
    await ctx.store.write(lambda c: clusters.delete(c, caller, clusters.show(c, caller, name)["name"]))
    return JSONResponse({"deleted": name})
