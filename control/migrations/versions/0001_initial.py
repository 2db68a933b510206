"""The first tables. A copy of control/tables.py as it was then; later revisions only add to it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

_AT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")  # UTC, with microseconds
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _table(name: str, *columns: Any) -> None:
    """Make a table; names, keys and hashes in it are compared byte by byte on every database."""
    options = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
    by_dialect: dict[str, Any] = {f"{d}_{key}": value for d in ("mysql", "mariadb") for key, value in options.items()}
    op.create_table(name, *columns, **by_dialect)


def _ref(table: str, column: str, target: str, *, nullable: bool = True) -> sa.Column[Any]:
    """Return a column that points to the id of another table."""
    key = sa.ForeignKey(f"{target}.id", name=f"fk_{table}_{column}")
    return sa.Column(column, sa.String(20), key, nullable=nullable)


def upgrade() -> None:
    _table(
        "account",
        sa.Column("id", sa.String(20)),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("max_instances", sa.Integer()),
        sa.Column("max_cpu", sa.Double()),
        sa.Column("max_memory_mib", sa.BigInteger()),
        sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("name", name="uq_account_name"),
    )
    _table(
        "cluster",
        sa.Column("id", sa.String(20)),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("cpu_overcommit", sa.Double(), nullable=False),
        sa.Column("memory_overcommit", sa.Double(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cluster"),
        sa.UniqueConstraint("name", name="uq_cluster_name"),
    )
    _table(
        "drift",
        sa.Column("id", sa.String(20)),
        sa.Column("subject", sa.String(96), nullable=False),
        sa.Column("host", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("recorded", sa.JSON(), nullable=False),
        sa.Column("seen", sa.JSON(), nullable=False),
        sa.Column("policy", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since_at", _AT, nullable=False),
        sa.Column("closed_at", _AT),
        sa.PrimaryKeyConstraint("id", name="pk_drift"),
    )
    op.create_index("ix_drift_subject", "drift", ["subject"], unique=False)
    _table(
        "image",
        sa.Column("id", sa.String(20)),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("live_name", sa.String(63)),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source", sa.String(2048), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("virtual_size_mib", sa.Integer(), nullable=False),
        sa.Column("min_memory_mib", sa.Integer(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_image"),
        sa.UniqueConstraint("live_name", name="uq_image_live_name"),
    )
    op.create_index("ix_image_sha256", "image", ["sha256"], unique=False)
    op.create_index("ix_image_state", "image", ["state"], unique=False)
    _table(
        "outbox",
        sa.Column("id", _SERIAL, autoincrement=True),
        sa.Column("at", _AT, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(96), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("moved", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_moved", "outbox", ["moved"], unique=False)
    op.create_index("ix_outbox_subject", "outbox", ["subject"], unique=False)
    _table(
        "worker",
        sa.Column("id", sa.String(20)),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("expires_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_worker"),
    )
    op.create_index("ix_worker_expires_at", "worker", ["expires_at"], unique=False)
    _table(
        "datastore",
        sa.Column("id", sa.String(20)),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("path", sa.String(1024), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        _ref("datastore", "cluster_id", "cluster"),
        sa.Column("overcommit", sa.Double(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datastore"),
        sa.UniqueConstraint("name", name="uq_datastore_name"),
    )
    op.create_index("ix_datastore_cluster_id", "datastore", ["cluster_id"], unique=False)
    _table(
        "host",
        sa.Column("id", sa.String(20)),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("live_name", sa.String(63)),
        _ref("host", "cluster_id", "cluster", nullable=False),
        sa.Column("driver", sa.String(16), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("user", sa.String(63), nullable=False),
        sa.Column("key_file", sa.String(1024), nullable=False),
        sa.Column("host_key", sa.String(1024), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("cpus", sa.Double(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("cpu_overcommit", sa.Double()),
        sa.Column("memory_overcommit", sa.Double()),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("seen_at", _AT),
        sa.Column("error", sa.JSON()),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_host"),
        sa.UniqueConstraint("live_name", name="uq_host_live_name"),
    )
    op.create_index("ix_host_cluster_id", "host", ["cluster_id"], unique=False)
    op.create_index("ix_host_state", "host", ["state"], unique=False)
    _table(
        "network",
        sa.Column("id", sa.String(20)),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("bridge", sa.String(15), nullable=False),
        sa.Column("addressing", sa.String(8), nullable=False),
        sa.Column("subnet", sa.String(64), nullable=False),
        sa.Column("gateway", sa.String(64), nullable=False),
        sa.Column("nameservers", sa.JSON(), nullable=False),
        sa.Column("default_for", sa.JSON(), nullable=False),
        _ref("network", "cluster_id", "cluster"),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_network"),
        sa.UniqueConstraint("name", name="uq_network_name"),
    )
    op.create_index("ix_network_cluster_id", "network", ["cluster_id"], unique=False)
    _table(
        "request",
        sa.Column("id", sa.String(20)),
        _ref("request", "user_id", "account", nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_request"),
        sa.UniqueConstraint("idempotency_key", name="uq_request_idempotency_key"),
    )
    op.create_index("ix_request_user_id", "request", ["user_id"], unique=False)
    _table(
        "token",
        sa.Column("id", sa.String(20)),
        _ref("token", "user_id", "account", nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("expires_at", _AT),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
        sa.UniqueConstraint("sha256", name="uq_token_sha256"),
    )
    op.create_index("ix_token_user_id", "token", ["user_id"], unique=False)
    _table(
        "address_range",
        sa.Column("id", sa.String(20)),
        _ref("address_range", "network_id", "network", nullable=False),
        _ref("address_range", "host_id", "host"),
        sa.Column("first", sa.String(64), nullable=False),
        sa.Column("last", sa.String(64), nullable=False),
        sa.Column("prefix_length", sa.Integer(), nullable=False),
        sa.Column("gateway", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_address_range"),
    )
    op.create_index("ix_address_range_host_id", "address_range", ["host_id"], unique=False)
    op.create_index("ix_address_range_network_id", "address_range", ["network_id"], unique=False)
    _table(
        "datastore_host",
        _ref("datastore_host", "datastore_id", "datastore", nullable=False),
        _ref("datastore_host", "host_id", "host", nullable=False),
        sa.Column("total_mib", sa.BigInteger(), nullable=False),
        sa.Column("free_mib", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("datastore_id", "host_id", name="pk_datastore_host"),
    )
    _table(
        "image_copy",
        sa.Column("sha256", sa.String(64)),
        _ref("image_copy", "host_id", "host", nullable=False),
        _ref("image_copy", "datastore_id", "datastore", nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("bytes_done", sa.BigInteger(), nullable=False),
        sa.Column("verified_at", _AT),
        sa.Column("updated_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("sha256", "host_id", "datastore_id", name="pk_image_copy"),
    )
    _table(
        "instance",
        sa.Column("id", sa.String(20)),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("live_name", sa.String(63)),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(63), nullable=False),
        sa.Column("cpu", sa.Double(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_mib", sa.BigInteger(), nullable=False),
        _ref("instance", "image_id", "image", nullable=False),
        _ref("instance", "host_id", "host"),
        _ref("instance", "datastore_id", "datastore"),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("blueprint", sa.String(255), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(1024), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.Column("deleted_at", _AT),
        sa.PrimaryKeyConstraint("id", name="pk_instance"),
        sa.UniqueConstraint("live_name", name="uq_instance_live_name"),
    )
    op.create_index("ix_instance_created_at", "instance", ["created_at"], unique=False)
    op.create_index("ix_instance_datastore_id", "instance", ["datastore_id"], unique=False)
    op.create_index("ix_instance_host_id", "instance", ["host_id"], unique=False)
    op.create_index("ix_instance_image_id", "instance", ["image_id"], unique=False)
    op.create_index("ix_instance_owner", "instance", ["owner"], unique=False)
    op.create_index("ix_instance_state", "instance", ["state"], unique=False)
    _table(
        "network_host",
        _ref("network_host", "network_id", "network", nullable=False),
        _ref("network_host", "host_id", "host", nullable=False),
        sa.Column("cidr", sa.String(64), nullable=False),
        sa.Column("seen_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("network_id", "host_id", name="pk_network_host"),
    )
    _table(
        "operation",
        sa.Column("id", sa.String(20)),
        _ref("operation", "request_id", "request", nullable=False),
        sa.Column("verb", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(96), nullable=False),
        sa.Column("subject_name", sa.String(63), nullable=False),
        sa.Column("open_subject", sa.String(96)),
        sa.Column("after_id", sa.String(20)),
        sa.Column("asked_by", sa.String(63), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(1024), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("claimed_by", sa.String(20)),
        sa.Column("flow_run_id", sa.String(36)),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", _AT),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("started_at", _AT),
        sa.Column("finished_at", _AT),
        sa.PrimaryKeyConstraint("id", name="pk_operation"),
        sa.UniqueConstraint("open_subject", name="uq_operation_open_subject"),
    )
    op.create_index("ix_operation_after_id", "operation", ["after_id"], unique=False)
    op.create_index("ix_operation_claimed_by", "operation", ["claimed_by"], unique=False)
    op.create_index("ix_operation_created_at", "operation", ["created_at"], unique=False)
    op.create_index("ix_operation_request_id", "operation", ["request_id"], unique=False)
    op.create_index("ix_operation_state", "operation", ["state"], unique=False)
    op.create_index("ix_operation_subject", "operation", ["subject"], unique=False)
    _table(
        "decision",
        sa.Column("id", sa.String(20)),
        _ref("decision", "operation_id", "operation"),
        _ref("decision", "instance_id", "instance", nullable=False),
        sa.Column("host", sa.String(63), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("features_version", sa.Integer(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decision"),
    )
    op.create_index("ix_decision_instance_id", "decision", ["instance_id"], unique=False)
    op.create_index("ix_decision_operation_id", "decision", ["operation_id"], unique=False)
    _table(
        "lease",
        sa.Column("id", sa.String(20)),
        _ref("lease", "network_id", "network", nullable=False),
        _ref("lease", "instance_id", "instance", nullable=False),
        sa.Column("nic_index", sa.Integer(), nullable=False),
        sa.Column("mac", sa.String(17), nullable=False),
        sa.Column("address", sa.String(64)),
        sa.Column("prefix_length", sa.Integer(), nullable=False),
        sa.Column("gateway", sa.String(64), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lease"),
        sa.UniqueConstraint("instance_id", "nic_index", name="uq_lease_instance_id_nic_index"),
        sa.UniqueConstraint("mac", name="uq_lease_mac"),
        sa.UniqueConstraint("network_id", "address", name="uq_lease_network_id_address"),
    )
    op.create_index("ix_lease_instance_id", "lease", ["instance_id"], unique=False)
    op.create_index("ix_lease_network_id", "lease", ["network_id"], unique=False)
    _table(
        "step",
        sa.Column("id", sa.String(20)),
        _ref("step", "operation_id", "operation", nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("host", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Boolean()),
        sa.Column("started_at", _AT),
        sa.Column("finished_at", _AT),
        sa.Column("evidence", sa.JSON()),
        sa.Column("error", sa.JSON()),
        sa.Column("compensation", sa.String(63), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_step"),
        sa.UniqueConstraint("operation_id", "sequence", name="uq_step_operation_id_sequence"),
    )
    op.create_index("ix_step_operation_id", "step", ["operation_id"], unique=False)


def downgrade() -> None:
    op.drop_table("step")
    op.drop_table("lease")
    op.drop_table("decision")
    op.drop_table("operation")
    op.drop_table("network_host")
    op.drop_table("instance")
    op.drop_table("image_copy")
    op.drop_table("datastore_host")
    op.drop_table("address_range")
    op.drop_table("token")
    op.drop_table("request")
    op.drop_table("network")
    op.drop_table("host")
    op.drop_table("datastore")
    op.drop_table("worker")
    op.drop_table("outbox")
    op.drop_table("image")
    op.drop_table("drift")
    op.drop_table("cluster")
    op.drop_table("account")
