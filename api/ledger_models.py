"""What the API answers about requests, operations and plans; beside models.py, which has the nouns."""

from __future__ import annotations

from pydantic import Field

from api.models import Answer, At, Id, Object
from core.states import InstanceKind, OperationState, StepState, Verb


class OperationRef(Answer):
    id: Id
    verb: Verb
    subject: str = Field(examples=["instance/0hs1k3v8m2c4d5e6f7g8"])
    name: str = Field(examples=["web"])
    state: OperationState


class Accepted(Answer):
    """The request stands in the ledger; its operations go on without you. repeated: this answer was given before."""

    request: Id
    operations: list[OperationRef]
    repeated: bool


class Differs(Answer):
    name: str
    fields: list[str]
    needs: str = Field(default="", description="what would make it so, where it cannot be changed in place")


class Changes(Answer):
    """What happens to one noun, by name. differs: cannot be changed in place."""

    create: list[str]
    update: list[Differs]
    unchanged: list[str]
    delete: list[str]
    differs: list[Differs]


class Placement(Answer):
    """Where a new instance would be placed now, or why nowhere."""

    name: str
    kind: InstanceKind
    cpu: float
    memory_mib: int
    disk_mib: int
    host: str | None
    datastore: str | None
    notes: list[str]
    error: Object | None


class Started(OperationRef):
    request: Id


class Plan(Answer):
    """What a blueprint changes. surplus: instances beyond a lower count, kept unless pruned."""

    dry_run: bool
    clusters: Changes
    datastores: Changes
    networks: Changes
    images: Changes
    hosts: Changes
    instances: Changes
    surplus: list[str]
    operations: list[Started]
    placements: list[Placement] = Field(description="of a dry run")


class Step(Answer):
    sequence: int
    name: str
    host: str | None
    state: StepState
    attempt: int
    changed: bool | None
    started_at: At | None
    finished_at: At | None
    evidence: Object | None
    error: Object | None
    compensation: str | None


class Operation(Answer):
    id: Id
    request: Id
    verb: Verb
    state: OperationState
    subject: str
    name: str
    asked_by: str
    parameters: Object
    reason: str | None
    error: Object | None
    attempts: int
    after: Id | None
    cancel_requested: bool
    flow_run: str | None
    not_before: At | None
    created_at: At
    started_at: At | None
    finished_at: At | None
    steps: list[Step] = Field(default=[], description="only when asked for")


class Eta(Answer):
    """left_s: as long as steps usually take; left_p95_s: exceeded one time out of twenty; null: nothing is known."""

    id: Id
    left_s: float | None
    left_p95_s: float | None


class Request(Answer):
    id: Id
    source: str
    asked_by: str
    created_at: At
    operations: list[Operation]


class RequestRow(Answer):
    id: Id
    source: str
    asked_by: str
    created_at: At
    operations: int
