"""What placement is fed from: overcommit that is learned, reservations for the future, hardware."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

_AT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")  # UTC, with microseconds
_OPTIONS: dict[str, Any] = {
    f"{dialect}_{key}": value for dialect in ("mysql", "mariadb")
    for key, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items()
}  # fmt: skip


def upgrade() -> None:
    with op.batch_alter_table("cluster") as cluster:
        cluster.add_column(sa.Column("cpu_learned_max", sa.Double(), nullable=False, server_default="0"))
    with op.batch_alter_table("host") as host:
        host.add_column(sa.Column("cpu_learned_max", sa.Double()))
        host.add_column(sa.Column("hardware", sa.JSON()))
    with op.batch_alter_table("instance") as instance:
        instance.add_column(sa.Column("granted", sa.JSON()))
        instance.add_column(sa.Column("other_granted", sa.JSON()))
    op.create_table(
        "reservation", sa.Column("id", sa.String(20)), sa.Column("name", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False), sa.Column("host_id", sa.String(20)),
        sa.Column("cluster_id", sa.String(20)), sa.Column("cpu", sa.Double(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False), sa.Column("begins_at", _AT, nullable=False),
        sa.Column("ends_at", _AT, nullable=False), sa.Column("reason", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(63), nullable=False), sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reservation"), sa.UniqueConstraint("name", name="uq_reservation_name"),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_reservation_host_id"),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name="fk_reservation_cluster_id"), **_OPTIONS,
    )  # fmt: skip
    for column in ("host_id", "cluster_id", "ends_at"):
        op.create_index(f"ix_reservation_{column}", "reservation", [column])


def downgrade() -> None:
    op.drop_table("reservation")
    with op.batch_alter_table("instance") as instance:
        for column in ("other_granted", "granted"):
            instance.drop_column(column)
    with op.batch_alter_table("host") as host:
        host.drop_column("hardware")
        host.drop_column("cpu_learned_max")
    with op.batch_alter_table("cluster") as cluster:
        cluster.drop_column("cpu_learned_max")
