"""Which fields of each noun stand in its table, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rackflow_cli import words

Row = Mapping[str, Any]

STATE_STYLES = {
    "running": "green", "ready": "green", "done": "green", "proven": "green", "passed": "green", "fits": "green",
    "chosen": "bold green",
    **dict.fromkeys((
        "pending", "on-hold", "staging", "starting", "shutting-down", "suspending", "resuming", "stopping", "restoring",
        "undeploying", "migrating", "resizing", "changing-disks", "changing-nics", "snapshotting", "saving-image",
        "backing-up", "reverting", "deleting", "importing", "enrolling", "draining", "compensating", "copying", "open",
        "applying", "waiting", "falling-asleep", "waking",
    ), "yellow"),
    "held": "bold red", "failed": "bold red", "faulty": "bold red", "unreachable": "bold red", "corrupt": "bold red",
    "compensated": "red", "no": "red", "not reached": "yellow",
    "fenced": "bold red",
    **dict.fromkeys((
        "off", "suspended", "stopped", "undeployed", "disabled", "maintenance", "cancelled", "retired", "deleted",
        "not tried", "asleep",
    ), "dim"),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """key: field, with dots for fields inside; wide: only with -o wide; rare: only if some row has it."""

    header: str
    key: str
    form: Callable[[Any], str] = words.text
    wide: bool = False
    rare: bool = False
    right: bool = False
    state: bool = False

    def value(self, row: Row) -> Any:
        """Return the raw value in a row, None where there is none."""
        found: Any = row
        for name in self.key.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


def _hosts(found: Any) -> str:
    return words.text([entry.get("host") for entry in found or ()])


def _copies(found: Any) -> str:
    """Say on which hosts a copy is, and how one stands that is not whole."""
    return words.text([f"{c['host']}" + ("" if c["state"] == "ready" else f" ({c['state']})") for c in found or ()])


def _named(found: Any) -> str:
    return words.text([entry["name"] for entry in found or ()])


def _least_free(found: Any) -> str:
    return words.mib(min((entry["free_mib"] for entry in found or ()), default=None))


def _verdict(passed: Any) -> str:
    return {True: "passed", False: "failed"}.get(passed, "not tried")


def _passed(checks: Any) -> str:
    """Return how many checks passed of those that were tried."""
    tried = [one for one in checks or () if one["passed"] is not None]
    return f"{sum(one['passed'] for one in tried)} of {len(tried)}" if tried else words.NOTHING


def _failed(checks: Any) -> str:
    return words.text([one["name"] for one in checks or () if one["passed"] is False])


def _begin(sha256: Any) -> str:
    return str(sha256)[:12] if sha256 else words.NOTHING


NAME, ID = Column("NAME", "name"), Column("ID", "id", wide=True)
STATE = Column("STATE", "state", state=True)
AGE = Column("AGE", "created_at", words.age, right=True)
LABELS = Column("LABELS", "labels", wide=True)
ERROR = Column("ERROR", "error.message", rare=True)
SEEN = Column("SEEN", "seen_at", words.age, right=True)


def _number(header: str, key: str, *, wide: bool = False) -> Column:
    return Column(header, key, words.number, right=True, wide=wide)


def _mib(header: str, key: str, *, wide: bool = False) -> Column:
    return Column(header, key, words.mib, right=True, wide=wide)


COLUMNS: dict[str, tuple[Column, ...]] = {
    "instance": (
        NAME, Column("KIND", "kind"), STATE, Column("HOST", "host"), Column("ADDRESSES", "addresses"),
        _number("CPU", "cpu"), _mib("MEMORY", "memory_mib"), _mib("DISK", "disk_mib", wide=True), AGE,
        Column("IMAGE", "image", wide=True), Column("OWNER", "owner", wide=True), LABELS, ID,
        Column("REASON", "reason", rare=True),
    ),
    "host": (
        NAME, Column("DRIVER", "driver"), STATE, Column("ADDRESS", "address"), Column("CLUSTER", "cluster"),
        _number("CPUS", "cpus"), _number("RESERVED", "cpu_reserved", wide=True), _mib("MEMORY", "memory_mib"),
        _mib("RESERVED", "memory_reserved_mib", wide=True), _number("INSTANCES", "instances"),
        SEEN, Column("USER", "user", wide=True), LABELS, ID, ERROR,
    ),
    "image": (
        NAME, Column("KIND", "kind"), STATE, Column("FORMAT", "format"),
        Column("SIZE", "size_bytes", words.size_bytes, right=True), _mib("DISK", "virtual_size_mib"), AGE,
        Column("COPIES", "copies", _copies), Column("SHA256", "sha256", _begin), Column("SOURCE", "source", wide=True),
        LABELS, ID, ERROR,
    ),
    "network": (
        NAME, Column("BRIDGE", "bridge"), Column("ADDRESSING", "addressing"), Column("SUBNET", "subnet"),
        _number("LEASED", "leased"), _number("FREE", "free"), Column("HOSTS", "hosts", _hosts),
        Column("DEFAULT FOR", "default_for"), Column("GATEWAY", "gateway", wide=True),
        Column("CLUSTER", "cluster", wide=True),
        Column("NAMESERVERS", "nameservers", wide=True), LABELS, ID, AGE,
    ),
    "datastore": (
        NAME, Column("KIND", "kind"), Column("PATH", "path"), Column("SHARED", "shared"), Column("CLUSTER", "cluster"),
        Column("HOSTS", "hosts", _hosts), Column("FREE", "hosts", _least_free, right=True),
        _number("OVERCOMMIT", "overcommit", wide=True), LABELS, ID, AGE,
    ),
    "datastore-hosts": (Column("HOST", "host"), _mib("TOTAL", "total_mib"), _mib("FREE", "free_mib"), SEEN),
    "network-leases": (Column("ADDRESS", "address"), Column("MAC", "mac"), Column("INSTANCE", "instance")),
    "cluster": (
        NAME, _number("HOSTS", "hosts"), _number("CPU OVERCOMMIT", "cpu_overcommit"),
        _number("LEARNED UP TO", "cpu_learned_max", wide=True), _number("MEMORY OVERCOMMIT", "memory_overcommit"),
        Column("POLICY", "placement_policy", wide=True), LABELS, ID, AGE,
    ),
    "reservation": (
        NAME, Column("KIND", "kind"), Column("HOST", "host", rare=True), Column("CLUSTER", "cluster", rare=True),
        _number("CPU", "cpu"), _mib("MEMORY", "memory_mib"), Column("FROM", "begins_at", words.until),
        Column("UNTIL", "ends_at", words.until), Column("OWNER", "owner"), Column("REASON", "reason", rare=True), ID,
    ),
    "operation": (
        Column("ID", "id"), Column("VERB", "verb"), Column("SUBJECT", "name"), STATE,
        Column("ASKED BY", "asked_by"), AGE, Column("TOOK", "took_s", words.duration, right=True),
        Column("REQUEST", "request", wide=True), Column("FLOW RUN", "flow_run", wide=True),
        Column("REASON", "reason", rare=True),
    ),
    "machine": (
        NAME, STATE, Column("BMC", "bmc"), Column("ROLE", "classified.role"), Column("CLUSTER", "classified.cluster"),
        Column("CHECKS", "checks", _passed), Column("RACK", "classified.rack", wide=True),
        Column("FAILURE DOMAIN", "classified.failure_domain", wide=True),
        Column("TRAITS", "classified.traits", wide=True), Column("USER", "user", wide=True), LABELS, ID,
        Column("SEEN", "updated_at", words.age, right=True), ERROR,
    ),
    "to-enroll": (NAME, Column("BMC", "bmc"), Column("USER", "user"), LABELS),
    "found": (
        Column("ADDRESS", "address"), Column("VENDOR", "vendor"), Column("PRODUCT", "product"),
        Column("REDFISH", "version"), Column("UUID", "uuid", wide=True), Column("ENROLLED AS", "machine"),
    ),
    "inspection": (
        Column("AT", "at"), _number("CPUS", "cpus"), _mib("MEMORY", "memory_mib"), _number("DISKS", "disks"),
        _number("NICS", "nics"), Column("CHANGES", "changes"),
    ),
    "change": (
        Column("MACHINE", "machine"), Column("WHAT", "what"), Column("KIND", "kind"), Column("BEFORE", "before"),
        Column("AFTER", "after"),
    ),
    "check": (
        NAME, Column("KIND", "kind"), Column("PASSED", "passed", _verdict, state=True),
        Column("FIGURE", "figure", words.number, right=True), Column("UNIT", "unit", rare=True),
        Column("REQUIRED", "require"), Column("WHY", "evidence.why", rare=True),
        Column("AGE", "at", words.age, right=True),
    ),
    "sensor": (
        Column("SENSOR", "sensor"), _number("VALUE", "value"), Column("UNIT", "unit"), Column("HEALTH", "health"),
        _number("LEAST", "min_week"), _number("MEAN", "avg_week"), _number("GREATEST", "max_week"),
        Column("SEEN", "sampled_at", words.age, right=True), _number("SAMPLES", "samples", wide=True),
    ),
    "reading": (Column("AT", "sampled_at"), _number("VALUE", "value"), Column("HEALTH", "health")),
    "log-entry": (
        Column("ENTRY", "entry"), Column("LOGGED", "logged_at"), Column("SEVERITY", "severity"),
        Column("MESSAGE", "message"), Column("SEEN", "seen_at", words.age, right=True),
    ),
    "rule": (
        NAME, Column("WHEN", "when"), Column("ROLE", "role"), Column("CLUSTER", "cluster"), Column("RACK", "rack"),
        Column("FAILURE DOMAIN", "failure_domain"), Column("TRAITS", "traits"),
    ),
    "check-rule": (NAME, Column("WHEN", "when"), Column("REQUIRED", "require"), Column("FIGURE", "figure")),
    "proposal": (
        Column("CLUSTER", "cluster"), Column("RESOURCE", "resource"), Column("RUNS OUT", "runs_out_at", words.until),
        Column("SHORT OF", "short"), Column("SPARE", "machine"), Column("ENOUGH", "enough"),
        Column("PROVEN", "proven"), Column("BY ITSELF", "automatic"),
    ),
    "tried": (
        Column("MACHINE", "machine"), Column("ROLE", "classified.role"), Column("CLUSTER", "classified.cluster"),
        Column("TRAITS", "classified.traits"), Column("RULES", "classified.rules"), Column("CHECKS", "checks", _passed),
        Column("FAILED", "checks", _failed, rare=True),
    ),
    "step": (
        _number("#", "sequence"), Column("STEP", "name"), Column("HOST", "host"), STATE, _number("ATTEMPT", "attempt"),
        Column("CHANGED", "changed"), Column("TOOK", "took_s", words.duration, right=True), ERROR,
    ),
    "snapshot": (NAME, Column("MEMORY", "memory"), Column("DISK", "disk", rare=True), AGE),
    "backup": (
        NAME, Column("INSTANCE", "instance"), STATE, Column("SIZE", "size_bytes", words.size_bytes, right=True),
        Column("SINCE", "parent"), AGE, Column("VERIFIED", "verified_at", words.age, right=True, rare=True), ID, ERROR,
    ),
    "plan": (
        Column("ID", "id"), Column("KIND", "kind"), Column("WHERE", "where"), STATE,
        _number("MOVES", "moves_planned"), Column("HOSTS", "hosts", right=True),
        Column("GREATEST LOAD", "load", right=True),
        Column("TAKES", "eta_s", words.duration, right=True), AGE, ERROR,
    ),
    "move": (
        _number("#", "n"), Column("INSTANCE", "instance"), Column("FROM", "from"), Column("TO", "to"),
        Column("HOW", "how"), _mib("CARRIES", "carried_mib"),
        Column("EXPECTED", "expected_s", words.duration, right=True), STATE,
        Column("TOOK", "took_s", words.duration, rare=True, right=True), Column("REASON", "reason", rare=True),
    ),
    "schedule": (
        Column("ID", "id"), Column("INSTANCE", "instance"), Column("VERB", "verb"),
        Column("PARAMETERS", "parameters", rare=True), Column("EVERY", "every_s", words.duration, rare=True),
        Column("AFTER START", "after_start_s", words.duration, rare=True), Column("NEXT", "next_at", words.until),
        Column("LAST", "last_at", words.age, right=True), Column("ENABLED", "enabled"),
        Column("ASKED BY", "asked_by", wide=True),
    ),
    "foreign": (
        NAME, Column("KIND", "kind"), Column("POWER", "power", state=True), _number("CPU", "cpu"),
        _mib("MEMORY", "memory_mib"), Column("DISKS", "disks", _named), Column("PROBLEMS", "problems", rare=True),
    ),
    "configuration": (Column("HOST", "host"), Column("KIND", "kind"), Column("WHAT", "what")),
    "drift": (
        Column("ID", "id"), Column("SUBJECT", "subject"), Column("HOST", "host"), Column("KIND", "kind"), STATE,
        Column("POLICY", "policy"), Column("RECORDED", "recorded"), Column("SEEN", "seen"),
        Column("SINCE", "since_at", words.age, right=True),
    ),
}  # fmt: skip


def with_took(row: Row) -> dict[str, Any]:
    """Add took_s, the seconds between an operation's or step's start and end, for the tables."""
    return {**row, "took_s": words.seconds_between(row.get("started_at"), row.get("finished_at"))}
