"""The whole lifecycle: moves between hosts, snapshots, backups, scheduled actions, hosts that are passed over."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

_AT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")  # UTC, with microseconds


def _table(name: str, *columns: Any) -> None:
    """Make a table; names, keys and hashes in it are compared byte by byte on every database."""
    options = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
    by_dialect: dict[str, Any] = {f"{d}_{key}": value for d in ("mysql", "mariadb") for key, value in options.items()}
    op.create_table(name, *columns, **by_dialect)


def _of_instance(table: str) -> tuple[Any, ...]:
    key = sa.ForeignKey("instance.id", name=f"fk_{table}_instance_id")
    return (
        sa.Column("id", sa.String(20)), sa.Column("instance_id", sa.String(20), key, nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
    )  # fmt: skip


def upgrade() -> None:
    with op.batch_alter_table("host") as host:
        host.add_column(sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
        host.add_column(sa.Column("retry_at", _AT))
    with op.batch_alter_table("instance") as instance:
        instance.alter_column("image_id", existing_type=sa.String(20), nullable=True)
        instance.add_column(sa.Column("other_host_id", sa.String(20)))
        instance.add_column(sa.Column("other_datastore_id", sa.String(20)))
        instance.add_column(sa.Column("host_name", sa.String(255), nullable=False, server_default=""))
    op.create_index("ix_instance_other_host_id", "instance", ["other_host_id"])
    _table(
        "snapshot", *_of_instance("snapshot"), sa.Column("name", sa.String(63), nullable=False),
        sa.Column("disk", sa.String(63), nullable=False), sa.Column("memory", sa.Boolean(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.UniqueConstraint("instance_id", "name", name="uq_snapshot_instance_id_name"),
    )  # fmt: skip
    _table(
        "backup", *_of_instance("backup"), sa.Column("name", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False), sa.Column("parent_id", sa.String(20)),
        sa.Column("files", sa.JSON(), nullable=False), sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False), sa.Column("error", sa.JSON()),
        sa.Column("created_at", _AT, nullable=False), sa.Column("verified_at", _AT),
        sa.UniqueConstraint("instance_id", "name", name="uq_backup_instance_id_name"),
    )  # fmt: skip
    op.create_index("ix_backup_parent_id", "backup", ["parent_id"])
    _table(
        "schedule", *_of_instance("schedule"), sa.Column("verb", sa.String(32), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False), sa.Column("asked_by", sa.String(63), nullable=False),
        sa.Column("every_s", sa.BigInteger()), sa.Column("after_start_s", sa.BigInteger()),
        sa.Column("next_at", _AT), sa.Column("last_at", _AT), sa.Column("last", sa.JSON()),
        sa.Column("enabled", sa.Boolean(), nullable=False), sa.Column("created_at", _AT, nullable=False),
    )  # fmt: skip
    op.create_index("ix_schedule_next_at", "schedule", ["next_at"])
    for table in ("snapshot", "backup", "schedule"):
        op.create_index(f"ix_{table}_instance_id", table, ["instance_id"])


def downgrade() -> None:
    for table in ("schedule", "backup", "snapshot"):
        op.drop_table(table)
    op.drop_index("ix_instance_other_host_id", "instance")
    with op.batch_alter_table("instance") as instance:
        for column in ("host_name", "other_datastore_id", "other_host_id"):
            instance.drop_column(column)
    with op.batch_alter_table("host") as host:
        for column in ("retry_at", "failures"):
            host.drop_column(column)
