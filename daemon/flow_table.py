"""Which flow does which verb, and which deployments exist. One deployment per flow, named as the flow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blueprints.change import PARAMETERS
from control.operations import Operation
from core.states import Verb

FLOW_OF = {
    Verb.DEPLOY: "deploy",
    **dict.fromkeys(PARAMETERS, "change"),
    **dict.fromkeys((Verb.RESTORE, Verb.REDEPLOY), "change"),
    Verb.START: "start",
    Verb.SHUTDOWN: "shutdown",
    Verb.DELETE: "delete",
    Verb.MIGRATE: "migrate",
    Verb.MIGRATE_LIVE: "migrate",
    Verb.TEST_BACKUP: "backup",
    Verb.DROP_BACKUP: "backup",
    Verb.ENROLL: "enroll",
    Verb.RETIRE: "enroll",
    Verb.CONFIGURE: "enroll",
    Verb.EVACUATE: "evacuate",
    Verb.FENCE: "fence",
    Verb.SLEEP: "host_power",
    Verb.WAKE: "host_power",
    Verb.ADOPT: "adopt",
    Verb.ENROLL_MACHINE: "enroll_machine",
    Verb.CHANGE_MACHINE: "change_machine",
    Verb.IMPORT: "stage",
    Verb.STAGE: "stage",
    Verb.REMOVE: "stage",
    Verb.RECONCILE: "reconcile",
    Verb.APPLY_PLAN: "apply_plan",
}


@dataclass(frozen=True)
class FlowEntry:
    """A flow's dotted entrypoint (never a path: that would load the module a second time). scheduled: run regularly."""

    name: str
    entrypoint: str
    scheduled: bool = False


FLOWS = (
    FlowEntry("deploy", "flows.deploy.deploy"),
    FlowEntry("start", "flows.change.start"),
    FlowEntry("shutdown", "flows.change.shutdown"),
    FlowEntry("change", "flows.change.change"),
    FlowEntry("migrate", "flows.change.migrate"),
    FlowEntry("delete", "flows.change.delete"),
    FlowEntry("backup", "flows.keep.backup"),
    FlowEntry("enroll", "flows.enroll.enroll"),
    FlowEntry("enroll_machine", "flows.enroll_machine.enroll_machine"),
    FlowEntry("change_machine", "flows.change_machine.change_machine"),
    FlowEntry("evacuate", "flows.evacuate.evacuate"),
    FlowEntry("fence", "flows.evacuate.fence"),
    FlowEntry("host_power", "flows.host_power.host_power"),
    FlowEntry("adopt", "flows.evacuate.adopt"),
    FlowEntry("stage", "flows.stage.stage"),
    FlowEntry("apply_plan", "flows.rebalance.apply_plan"),
    FlowEntry("reconcile", "flows.reconcile.reconcile", scheduled=True),
)


def batches(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Return flow name -> its operations of this round: one flow run each."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        found.setdefault(FLOW_OF[operation.verb], []).append(operation)
    return found


def run_name(operations: list[Operation]) -> str:
    """Return what a flow run is called in Prefect's UI: "deploy web-1", "deploy 40 instances"."""
    first = operations[0]
    if len(operations) == 1:
        return f"{first.verb} {first.subject_name or first.subject}"
    nouns = {operation.subject_kind for operation in operations}
    return f"{first.verb} {len(operations)} {nouns.pop() + 's' if len(nouns) == 1 else 'operations'}"
