"""States and verbs, as they stand in the database and in the API."""

from __future__ import annotations

from enum import StrEnum


class InstanceState(StrEnum):
    # that may last
    PENDING = "pending"  # accepted; not placed yet, or waiting for capacity
    ON_HOLD = "on-hold"  # its owner does not want it placed yet
    RUNNING = "running"
    SUSPENDED = "suspended"  # paused, in its host's memory
    OFF = "off"  # on its host, with disks and addresses
    STOPPED = "stopped"  # memory and disks saved by the front-end; holds no host
    UNDEPLOYED = "undeployed"  # disks saved by the front-end; holds no host
    HELD = "held"  # waits for the operator, with the reason
    FAILED = "failed"
    DELETED = "deleted"  # kept for history only; its name is free again
    # passing: an operation is under way
    STAGING = "staging"  # placed; image and disks are being made
    STARTING = "starting"
    SHUTTING_DOWN = "shutting-down"
    SUSPENDING = "suspending"
    RESUMING = "resuming"
    STOPPING = "stopping"
    RESTORING = "restoring"  # memory or disks are brought back to a host
    UNDEPLOYING = "undeploying"
    MIGRATING = "migrating"
    RESIZING = "resizing"
    CHANGING_DISKS = "changing-disks"
    CHANGING_NICS = "changing-nics"
    SNAPSHOTTING = "snapshotting"
    SAVING_IMAGE = "saving-image"
    BACKING_UP = "backing-up"
    REVERTING = "reverting"  # to a backup
    DELETING = "deleting"


class HostState(StrEnum):
    ENROLLING = "enrolling"
    READY = "ready"
    DISABLED = "disabled"  # by the operator: no new placements
    DRAINING = "draining"  # being emptied; no new placements
    MAINTENANCE = "maintenance"  # the operator works on it: no placements, no repairs, no alarm
    UNREACHABLE = "unreachable"  # ready, but did not answer the last look
    FALLING_ASLEEP = "falling-asleep"  # chosen to be switched off: no placements any more
    ASLEEP = "asleep"  # off because nobody needs it; woken when somebody does
    WAKING = "waking"  # switched on, not ready yet
    FENCED = "fenced"  # dead by two signals, its power cut by us; its instances may start elsewhere
    FAULTY = "faulty"  # needs the operator
    RETIRED = "retired"


RESTING = (HostState.FALLING_ASLEEP, HostState.ASLEEP, HostState.WAKING)  # silence of these is no news


class MachineState(StrEnum):
    """A machine with a BMC, whatever runs on it."""

    ENROLLING = "enrolling"
    READY = "ready"  # inspected, classified, and it passed its checks
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
    """What an operation does; at most 16 characters."""

    # to an instance
    DEPLOY = "deploy"
    START = "start"
    SHUTDOWN = "shutdown"  # the guest is asked, then cut off
    POWEROFF = "poweroff"  # cut off at once
    REBOOT = "reboot"
    SUSPEND = "suspend"
    RESUME = "resume"
    STOP = "stop"  # memory and disks saved, host freed
    RESTORE = "restore"  # a stopped one runs again, where it had stopped
    UNDEPLOY = "undeploy"  # shut down, disks saved, host freed
    REDEPLOY = "redeploy"  # an undeployed one starts on some host
    MIGRATE = "migrate"  # off or shut down for the way
    MIGRATE_LIVE = "migrate-live"
    RENAME = "rename"
    RESIZE = "resize"
    ATTACH_DISK = "attach-disk"
    DETACH_DISK = "detach-disk"
    GROW_DISK = "grow-disk"
    ATTACH_NIC = "attach-nic"
    DETACH_NIC = "detach-nic"
    SNAPSHOT = "snapshot"
    REVERT = "revert"
    DROP_SNAPSHOT = "drop-snapshot"
    SAVE_IMAGE = "save-image"
    BACKUP = "backup"
    REVERT_BACKUP = "revert-backup"
    FAILOVER = "failover"  # its host is fenced: start elsewhere from shared storage
    DELETE = "delete"
    # to a host
    ENROLL = "enroll"
    ADOPT = "adopt"  # take over instances that run there already
    EVACUATE = "evacuate"  # move away what runs there
    FENCE = "fence"  # cut its power, because it is dead
    SLEEP = "sleep"  # switch it off while nobody needs it
    WAKE = "wake"  # switch it on again
    RETIRE = "retire"  # take a host out
    CONFIGURE = "configure"  # make it a hypervisor over SSH
    # to a machine with a BMC
    ENROLL_MACHINE = "enroll-machine"  # look at it, classify it, check it
    CHANGE_MACHINE = "change-machine"  # its power, its LED, its disks
    # to an image
    IMPORT = "import"  # bring an image into the front-end's store
    STAGE = "stage"  # copy an image to hosts
    REMOVE = "remove"  # take an image away from the store and from every host
    # to a backup
    TEST_BACKUP = "test-backup"  # read all of it, and put it together
    DROP_BACKUP = "drop-backup"
    # to the cloud
    RECONCILE = "reconcile"
    APPLY_PLAN = "apply-plan"  # move instances as a plan says


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


class MachinePower(StrEnum):
    """What a BMC says of its machine. Only OFF is off: one that is on its way down is UNKNOWN."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"
