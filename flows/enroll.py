"""Take machines in as hosts, configure them, and out again."""

from __future__ import annotations

from prefect import flow

from core.states import Verb
from tasks.configure import configure_hosts
from tasks.forms import DriverName, enroll_body
from tasks.hosts import enroll_hosts, retire_hosts
from tasks.ledger import enter
from tasks.settle import settle


@flow(name="enroll", flow_run_name="enroll")
async def enroll(
    name: str = "",
    address: str = "",
    user: str = "root",
    port: int = 22,
    driver: DriverName = "auto",
    fingerprint: str = "",
    key_file: str = "",
    cluster: str = "default",
    container_bridge: str = "",
    password_file: str = "",
    place: str = "",
    operations: list[str] = [],  # noqa: B006 - a form's default
) -> None:
    """Take a machine in that is reached by SSH and bring it to a usable state.

    Args:
        name: the host's name in this cloud
        address: host name or IP address
        user: root, or one that may use sudo without a password
        port: of SSH; of esxi the API's, 443
        driver: auto takes what is installed there; esxi: an ESXi host or a vCenter
        fingerprint: SHA256:… of its SSH host key
        key_file: private key on the front-end; empty: rackflow's own
        cluster: the cluster that it joins
        container_bridge: address of lxcbr0 on it, for example 10.1.0.1/24; empty: chosen
        password_file: esxi: a file on the front-end with the password of its user
        place: esxi: of a vCenter, DATACENTER/CLUSTER or DATACENTER/CLUSTER/HOST
        operations: leave empty; filled by rackflow's dispatcher
    """
    form = enroll_body(
        name, address, user, port, driver, key_file, fingerprint, cluster, container_bridge, password_file, place
    )
    batch = await enter(Verb.ENROLL, form, operations)
    try:
        await enroll_hosts(batch)
        await retire_hosts(batch)
        await configure_hosts(batch)
    finally:
        await settle(batch)
