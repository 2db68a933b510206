"""Take machines in by their BMCs."""

from __future__ import annotations

from prefect import flow

from core.states import Verb
from tasks.forms import machine_body
from tasks.ledger import enter
from tasks.machine_stages import enroll_machines
from tasks.settle import settle


@flow(name="enroll_machine", flow_run_name="enroll_machine")
async def enroll_machine(
    name: str = "",
    bmc: str = "",
    user: str = "",
    password_file: str = "",
    system: str = "",
    verify_tls: bool = True,
    operations: list[str] = [],  # noqa: B006 - a form's default
) -> None:
    """Look at a machine through its BMC, classify it by the rules and check it.

    Args:
        name: the machine's name in this cloud
        bmc: address of its BMC, for example https://10.0.0.1 or ipmi://10.0.0.1
        user: of the BMC
        password_file: a file on the front-end with the password of that user
        system: which of the systems that the BMC manages; empty: its only one
        verify_tls: check the certificate of the BMC
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(
        Verb.ENROLL_MACHINE, machine_body(name, bmc, user, password_file, system, verify_tls), operations
    )
    try:
        await enroll_machines(batch)
    finally:
        await settle(batch)
