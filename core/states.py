"""States and verbs, as they stand in the database and in the API."""

from __future__ import annotations

from enum import StrEnum


class InstanceState(StrEnum):
    PENDING = "pending"  # accepted; not placed yet, or waiting for capacity
    STAGING = "staging"  # placed; image and disks are being made
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    HELD = "held"  # waits for the operator, with the reason
    FAILED = "failed"
    DELETED = "deleted"  # kept for history only; its name is free again


class HostState(StrEnum):
    ENROLLING = "enrolling"
    READY = "ready"
    DISABLED = "disabled"  # by the operator: no new placements
    UNREACHABLE = "unreachable"  # ready, but did not answer the last look
    FAULTY = "faulty"  # needs the operator
    RETIRED = "retired"


class ImageState(StrEnum):
    PENDING = "pending"
    IMPORTING = "importing"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class CopyState(StrEnum):
    """An image's copy on one host."""

    COPYING = "copying"
    READY = "ready"
    CORRUPT = "corrupt"


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    HELD = "held"
    CANCELLED = "cancelled"


UNFINISHED = (OperationState.PENDING, OperationState.RUNNING, OperationState.COMPENSATING)
FINISHED = tuple(s for s in OperationState if s not in UNFINISHED)


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    COMPENSATED = "compensated"


class Verb(StrEnum):
    DEPLOY = "deploy"
    START = "start"
    STOP = "stop"
    DELETE = "delete"
    ENROLL = "enroll"
    IMPORT = "import"  # bring an image into the front-end's store
    STAGE = "stage"  # copy an image to hosts
    REMOVE = "remove"  # take an image away from the store and from every host
    RETIRE = "retire"  # take a host out
    RECONCILE = "reconcile"


class InstanceKind(StrEnum):
    VM = "vm"
    CONTAINER = "container"


class PowerState(StrEnum):
    """What a hypervisor says of an instance."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    CRASHED = "crashed"
    ABSENT = "absent"
    UNKNOWN = "unknown"
