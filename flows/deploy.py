"""Deploy instances: place all together, then make them host by host."""

from __future__ import annotations

import asyncio
from typing import Literal

from prefect import flow

from core.states import Verb
from tasks.forms import deploy_body
from tasks.ledger import enter
from tasks.lifecycle import deploy as deploy_on
from tasks.lifecycle import groups
from tasks.place import place
from tasks.settle import settle


@flow(name="deploy", flow_run_name="deploy", validate_parameters=True)
async def deploy(
    name: str = "",
    image: str = "",
    kind: Literal["vm", "container"] = "container",
    count: int = 1,
    cpu: float = 1.0,
    memory: str = "128MiB",
    disk: str = "",
    network: str = "",
    cluster: str = "",
    host: str = "",
    ssh_key: str = "",
    user_data: str = "",
    operations: list[str] = [],  # noqa: B006 - a form's default; never changed
) -> None:
    """Create instances from an image on the hosts that suit them best.

    Args:
        name: lower case, digits, hyphens; count > 1 makes NAME-1, NAME-2 …
        image: name of an image of this cloud
        kind: vm or container
        count: how many
        cpu: cores
        memory: for example 512MiB
        disk: size of the root disk, for example 2GiB; empty: as the image
        network: name of a network; empty: the default one
        cluster: only hosts of this cluster
        host: only this host
        ssh_key: public key that may log in
        user_data: cloud-init user data
        operations: leave empty; filled by rackflow's dispatcher
    """
    form = deploy_body(name, image, kind, count, cpu, memory, disk, network, cluster, host, ssh_key, user_data)
    batch = await enter(Verb.DEPLOY, form, operations)
    try:
        hosts = await place(batch, len(batch))
        await asyncio.gather(*(deploy_on(where, part) for where, part in groups(hosts).items()), return_exceptions=True)
    finally:
        await settle(batch)
