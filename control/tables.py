"""The tables of the state of record, for SQLite, PostgreSQL and MariaDB/MySQL.

Times are aware UTC. A column `live_name` / `open_subject` holds its value while the row is alive and NULL afterwards,
so that a unique index keeps one live row per name and at most one unfinished operation per subject on every database.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


@lru_cache(maxsize=4096)
def _utc(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python, naive UTC with microseconds in the database."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects.mysql import DATETIME

            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Any:
        """Return what converts a value; SQLite's is text, and many rows have the same one."""
        return _utc if dialect.name == "sqlite" else super().result_processor(dialect, coltype)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


_BYTES = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")  # up to 16 MiB


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.String(20), primary_key=True)


def _ref(name: str, target: str, *, nullable: bool = True, index: bool = True) -> sa.Column[str]:
    return sa.Column(name, sa.String(20), sa.ForeignKey(f"{target}.id"), nullable=nullable, index=index)


def _name(name: str = "name", length: int = 63) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON, nullable=False)


def _maybe_json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(none_as_null=True))  # nothing is NULL, not the JSON text "null"


def _at(name: str, *, nullable: bool = False, index: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, UtcDateTime, nullable=nullable, index=index)


def _where_set(name: str) -> sa.Index:
    """Return an index of an instance's column without the rows where it is NULL, on databases that can."""
    some = sa.text(f"{name} IS NOT NULL")
    return sa.Index(f"ix_instance_{name}", name, sqlite_where=some, postgresql_where=some)


def new_mark() -> int:
    """Return a number that nothing else has."""
    return secrets.randbits(63)


cluster = sa.Table(
    "cluster", metadata, _id(), sa.Column("name", sa.String(63), nullable=False, unique=True),
    sa.Column("cpu_overcommit", sa.Double, nullable=False), sa.Column("memory_overcommit", sa.Double, nullable=False),
    sa.Column("cpu_learned_max", sa.Double, nullable=False, server_default="0"),  # 0: not by what is used
    _json("labels"), _maybe_json("rebalance"),  # NULL: by hand only
    _maybe_json("power"),  # NULL: by hand only
    sa.Column("placement_policy", sa.String(63)),  # NULL: the front-end's
    _at("created_at"),
)  # fmt: skip

host = sa.Table(
    "host", metadata, _id(), _name(), sa.Column("live_name", sa.String(63), unique=True),
    # "" until enrolled
    _ref("cluster_id", "cluster", nullable=False), sa.Column("driver", sa.String(16), nullable=False),
    sa.Column("address", sa.String(255), nullable=False), sa.Column("port", sa.Integer, nullable=False),
    sa.Column("user", sa.String(63), nullable=False), sa.Column("key_file", sa.String(1024), nullable=False),
    sa.Column("host_key", sa.String(1024), nullable=False),  # pinned
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("cpus", sa.Double, nullable=False), sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("cpu_overcommit", sa.Double), sa.Column("memory_overcommit", sa.Double),  # NULL: the cluster's
    sa.Column("cpu_learned_max", sa.Double),  # likewise
    _json("spec"), _json("labels"), _json("facts"), _json("capabilities"),
    _maybe_json("hardware"),  # what single instances may have for themselves; NULL: nothing (see placing_hardware.py)
    _maybe_json("power"),  # since when it is idle, when it was switched off and on (see sleeping.py)
    sa.Column("version", sa.Integer, nullable=False),  # grows with each placement and each change; guards conflicts
    sa.Column("mark", sa.BigInteger, nullable=False, server_default="0", onupdate=new_mark),  # see marks.py
    # steps that failed in a row because of it; nothing is placed on it before retry_at
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"), _at("retry_at", nullable=True),
    _at("seen_at", nullable=True), _maybe_json("error"), _at("created_at"), _at("updated_at"),
    sa.Index("ix_host_mark", "live_name", "id", "version", "mark"),  # which hosts changed, without reading their rows
)  # fmt: skip

machine = sa.Table(  # a machine with a BMC; what is unique of live ones is NULL when it is retired, or not known yet
    "machine", metadata, _id(), _name(), sa.Column("live_name", sa.String(63), unique=True),
    sa.Column("live_bmc", sa.String(255), unique=True), sa.Column("live_serial", sa.String(128), unique=True),
    sa.Column("sealed_password", sa.Text, nullable=False),  # encrypted (see secrets.py); "" = none
    sa.Column("state", sa.String(16), nullable=False, index=True), _json("spec"), _json("labels"),
    _json("classified"), _json("checks"), _maybe_json("error"), _at("created_at"), _at("updated_at"),
)  # fmt: skip

machine_mac = sa.Table(  # of live machines: each address is one machine's
    "machine_mac", metadata, sa.Column("mac", sa.String(64), primary_key=True),
    _ref("machine_id", "machine", nullable=False),
)  # fmt: skip

machine_inventory = sa.Table(  # every inspection. changes: what differs from the one before
    "machine_inventory", metadata, _id(), _ref("machine_id", "machine", nullable=False),
    _json("inventory"), _json("changes"), _at("at"),
)  # fmt: skip

machine_rule = sa.Table(  # kind: classify or check; applied by position
    "machine_rule", metadata, sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False), sa.Column("position", sa.Integer, nullable=False),
    _json("spec"),
)  # fmt: skip

datastore = sa.Table(
    "datastore", metadata, _id(), sa.Column("name", sa.String(63), nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False), sa.Column("path", sa.String(1024), nullable=False),
    sa.Column("shared", sa.Boolean, nullable=False), _ref("cluster_id", "cluster"),
    sa.Column("overcommit", sa.Double, nullable=False), _json("labels"), _at("created_at"),
)  # fmt: skip

datastore_host = sa.Table(  # a datastore as it is on one host; no row: not reachable from there
    "datastore_host", metadata,
    sa.Column("datastore_id", sa.String(20), sa.ForeignKey("datastore.id"), primary_key=True),
    sa.Column("host_id", sa.String(20), sa.ForeignKey("host.id"), primary_key=True),
    sa.Column("total_mib", sa.BigInteger, nullable=False), sa.Column("free_mib", sa.BigInteger, nullable=False),
    _at("seen_at"),
)  # fmt: skip

network = sa.Table(
    "network", metadata, _id(), sa.Column("name", sa.String(63), nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False), sa.Column("bridge", sa.String(15), nullable=False),
    sa.Column("addressing", sa.String(8), nullable=False), sa.Column("subnet", sa.String(64), nullable=False),
    sa.Column("gateway", sa.String(64), nullable=False), _json("nameservers"), _json("default_for"),
    _ref("cluster_id", "cluster"), _json("labels"), _at("created_at"),
)  # fmt: skip

network_host = sa.Table(  # a network's bridge as observed on one host; no row: no reach
    "network_host", metadata,
    sa.Column("network_id", sa.String(20), sa.ForeignKey("network.id"), primary_key=True),
    sa.Column("host_id", sa.String(20), sa.ForeignKey("host.id"), primary_key=True),
    sa.Column("cidr", sa.String(64), nullable=False), _at("seen_at"),
)  # fmt: skip

address_range = sa.Table(  # host_id NULL: good on every host
    "address_range", metadata, _id(), _ref("network_id", "network", nullable=False), _ref("host_id", "host"),
    sa.Column("first", sa.String(64), nullable=False), sa.Column("last", sa.String(64), nullable=False),
    sa.Column("prefix_length", sa.Integer, nullable=False), sa.Column("gateway", sa.String(64), nullable=False),
)  # fmt: skip

image = sa.Table(
    "image", metadata, _id(), _name(), sa.Column("live_name", sa.String(63), unique=True),
    sa.Column("kind", sa.String(16), nullable=False), sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("source", sa.String(2048), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("format", sa.String(16), nullable=False), sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("virtual_size_mib", sa.Integer, nullable=False), sa.Column("min_memory_mib", sa.Integer, nullable=False),
    _json("spec"), _json("labels"), _maybe_json("error"), _at("created_at"), _at("updated_at"),
)  # fmt: skip

image_copy = sa.Table(  # content on a host, by sha256 (two images with the same content share it)
    "image_copy", metadata, sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("host_id", sa.String(20), sa.ForeignKey("host.id"), primary_key=True),
    sa.Column("datastore_id", sa.String(20), sa.ForeignKey("datastore.id"), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False), sa.Column("bytes_done", sa.BigInteger, nullable=False),
    _at("verified_at", nullable=True), _at("updated_at"),
)  # fmt: skip

# host_id set = its cpu, memory and disk are reserved there. other_host_id: reserved there as well, while it moves (the
# target before the record switches, the source afterwards). host_name: its name on the host where that is not ours.
instance = sa.Table(
    "instance", metadata, _id(), _name(), sa.Column("live_name", sa.String(63), unique=True),
    sa.Column("kind", sa.String(16), nullable=False), sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("owner", sa.String(63), nullable=False, index=True),
    sa.Column("cpu", sa.Double, nullable=False), sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("disk_mib", sa.BigInteger, nullable=False),  # root and further disks
    _ref("image_id", "image"),  # NULL: adopted
    _ref("host_id", "host", index=False), _ref("datastore_id", "datastore", index=False),
    sa.Column("other_host_id", sa.String(20)), sa.Column("other_datastore_id", sa.String(20)),
    # cores, cell, pages and devices of these hosts that are its alone; NULL: none
    _maybe_json("granted"), _maybe_json("other_granted"),
    sa.Column("host_name", sa.String(255), nullable=False, server_default=""),
    _json("spec"), _json("labels"), sa.Column("blueprint", sa.String(255), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),  # of the last operation that changed it; older observations lose
    sa.Column("reason", sa.String(1024), nullable=False),  # why pending, held or failed
    _at("created_at", index=True), _at("updated_at"), _at("deleted_at", nullable=True),
    _where_set("host_id"), _where_set("datastore_id"), _where_set("other_host_id"),
)  # fmt: skip

lease = sa.Table(  # its unique constraints serve as indexes of network and instance as well
    "lease", metadata, _id(), _ref("network_id", "network", nullable=False, index=False),
    _ref("instance_id", "instance", nullable=False, index=False),
    sa.Column("nic_index", sa.Integer, nullable=False), sa.Column("mac", sa.String(17), nullable=False, unique=True),
    sa.Column("address", sa.String(64)),  # NULL: DHCP
    sa.Column("prefix_length", sa.Integer, nullable=False), sa.Column("gateway", sa.String(64), nullable=False),
    _at("created_at"),
    sa.UniqueConstraint("network_id", "address"), sa.UniqueConstraint("instance_id", "nic_index"),
)  # fmt: skip

snapshot = sa.Table(  # disk "": of all disks
    "snapshot", metadata, _id(), _ref("instance_id", "instance", nullable=False), _name(),
    sa.Column("disk", sa.String(63), nullable=False), sa.Column("memory", sa.Boolean, nullable=False),
    _at("created_at"), sa.UniqueConstraint("instance_id", "name"),
)  # fmt: skip

backup = sa.Table(  # files: of this one; parent_id: the one that an incremental goes on from
    "backup", metadata, _id(), _ref("instance_id", "instance", nullable=False), _name(),
    sa.Column("state", sa.String(16), nullable=False), sa.Column("parent_id", sa.String(20), index=True),
    _json("files"), _json("spec"), sa.Column("size_bytes", sa.BigInteger, nullable=False),
    _maybe_json("error"), _at("created_at"), _at("verified_at", nullable=True),
    sa.UniqueConstraint("instance_id", "name"),
)  # fmt: skip

schedule = sa.Table(  # every_s NULL: once. relative: next_at is counted from each start of the instance
    "schedule", metadata, _id(), _ref("instance_id", "instance", nullable=False),
    sa.Column("verb", sa.String(32), nullable=False), _json("parameters"), _name("asked_by"),
    sa.Column("every_s", sa.BigInteger), sa.Column("after_start_s", sa.BigInteger),
    _at("next_at", nullable=True, index=True), _at("last_at", nullable=True), _maybe_json("last"),
    sa.Column("enabled", sa.Boolean, nullable=False), _at("created_at"),
)  # fmt: skip

reservation = sa.Table(  # of a host, or of a cluster; a maintenance takes all of it
    "reservation", metadata, _id(), sa.Column("name", sa.String(63), nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False), _ref("host_id", "host"), _ref("cluster_id", "cluster"),
    sa.Column("cpu", sa.Double, nullable=False), sa.Column("memory_mib", sa.BigInteger, nullable=False),
    _at("begins_at"), _at("ends_at", index=True), sa.Column("reason", sa.String(255), nullable=False),
    sa.Column("owner", sa.String(63), nullable=False), _at("created_at"),
)  # fmt: skip

user = sa.Table(
    "account", metadata, _id(), sa.Column("name", sa.String(63), nullable=False, unique=True),
    sa.Column("role", sa.String(16), nullable=False),  # admin | user
    sa.Column("max_instances", sa.Integer), sa.Column("max_cpu", sa.Double), sa.Column("max_memory_mib", sa.BigInteger),
    _at("created_at"),
)  # fmt: skip

token = sa.Table(  # only a hash is kept (the token has 256 random bits, so SHA-256 is enough)
    "token", metadata, _id(), _ref("user_id", "account", nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    _name("label", 255), _at("created_at"), _at("expires_at", nullable=True),
)  # fmt: skip

request = sa.Table(
    "request", metadata, _id(), _ref("user_id", "account", nullable=False),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("idempotency_key", sa.String(255), unique=True),  # user id + ":" + key
    sa.Column("body_sha256", sa.String(64), nullable=False), _at("created_at"),
)  # fmt: skip

worker = sa.Table(  # a claim: judged by the database's clock
    "worker", metadata, _id(), _name("label", 255), _at("expires_at", index=True),
)  # fmt: skip

operation = sa.Table(
    "operation", metadata, _id(), _ref("request_id", "request", nullable=False),
    # "instance/<id>"
    sa.Column("verb", sa.String(16), nullable=False), sa.Column("subject", sa.String(96), nullable=False, index=True),
    sa.Column("subject_name", sa.String(63), nullable=False),
    sa.Column("open_subject", sa.String(96), unique=True),
    sa.Column("after_id", sa.String(20), index=True),  # a delete waits for the operation that it cancelled
    sa.Column("asked_by", sa.String(63), nullable=False),
    _json("parameters"), sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.String(1024), nullable=False), _maybe_json("error"),
    sa.Column("epoch", sa.Integer, nullable=False), sa.Column("claimed_by", sa.String(20), index=True),
    sa.Column("flow_run_id", sa.String(36)), sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False), _at("not_before", nullable=True),
    sa.Column("priority", sa.Integer, nullable=False, server_default="50"),  # of what is placed; higher goes first
    _at("created_at", index=True), _at("started_at", nullable=True), _at("finished_at", nullable=True),
)  # fmt: skip

step = sa.Table(
    "step", metadata, _id(), _ref("operation_id", "operation", nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    _name(), sa.Column("host", sa.String(63), nullable=False), sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False), sa.Column("changed", sa.Boolean),
    _at("started_at", nullable=True), _at("finished_at", nullable=True), _maybe_json("evidence"),
    _maybe_json("error"), sa.Column("compensation", sa.String(63), nullable=False),
    sa.UniqueConstraint("operation_id", "sequence"),
)  # fmt: skip

decision = sa.Table(
    "decision", metadata, _id(), _ref("operation_id", "operation"), _ref("instance_id", "instance", nullable=False),
    sa.Column("host", sa.String(63), nullable=False),  # "" = none found
    _json("record"), sa.Column("features_version", sa.Integer, nullable=False), _at("created_at"),
)  # fmt: skip

placement_round = sa.Table(  # kind: view, features, round; a round names the rows that it is held against (rounds.py)
    "placement_round", metadata, _id(), _at("at", index=True), sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("view_id", sa.String(20), nullable=False), sa.Column("features_id", sa.String(20), nullable=False),
    sa.Column("policy", sa.String(63), nullable=False), sa.Column("data", _BYTES, nullable=False),
)  # fmt: skip

drift = sa.Table(
    "drift", metadata, _id(), sa.Column("subject", sa.String(96), nullable=False, index=True),
    sa.Column("host", sa.String(63), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False), _json("recorded"), _json("seen"),
    sa.Column("policy", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # open, repaired, gone
    _at("since_at"), _at("closed_at", nullable=True),
)  # fmt: skip

plan = sa.Table(  # moves between hosts, frozen; of a host ("" = of none) or of a cluster ("" = of all)
    "plan", metadata, _id(), sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("host", sa.String(63), nullable=False), sa.Column("cluster", sa.String(63), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # ready, cancelled, applied: then the operation says how far
    _name("asked_by"), _json("parameters"), _json("moves"), _json("effect"), _json("made_from"), _json("stays"),
    sa.Column("method", sa.String(16), nullable=False), sa.Column("optimal", sa.Boolean, nullable=False),
    sa.Column("eta_s", sa.Double, nullable=False), _at("created_at"),
)  # fmt: skip

outbox = sa.Table(  # lifecycle events on their way to DuckDB; also read by `events`
    "outbox", metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    _at("at"), sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(96), nullable=False, index=True),
    _json("payload"), sa.Column("moved", sa.Boolean, nullable=False, index=True),
)  # fmt: skip

for _table in metadata.tables.values():  # names, keys and hashes are compared byte by byte on every database
    for _dialect in ("mysql", "mariadb"):
        for _option, _value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items():
            _table.dialect_options[_dialect][_option] = _value
