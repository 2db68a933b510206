"""Plans of moves between hosts, and which of them a cluster makes and carries out by itself."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

_AT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")  # UTC, with microseconds
_OPTIONS = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}


def upgrade() -> None:
    by_dialect: dict[str, Any] = {f"{d}_{key}": value for d in ("mysql", "mariadb") for key, value in _OPTIONS.items()}
    op.create_table(
        "plan", sa.Column("id", sa.String(20)), sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("host", sa.String(63), nullable=False), sa.Column("cluster", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False), sa.Column("asked_by", sa.String(63), nullable=False),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in
          ("parameters", "moves", "effect", "made_from", "stays")),
        sa.Column("method", sa.String(16), nullable=False), sa.Column("optimal", sa.Boolean(), nullable=False),
        sa.Column("eta_s", sa.Double(), nullable=False), sa.Column("created_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_plan"), **by_dialect,
    )  # fmt: skip
    with op.batch_alter_table("cluster") as cluster:
        cluster.add_column(sa.Column("rebalance", sa.JSON()))


def downgrade() -> None:
    with op.batch_alter_table("cluster") as cluster:
        cluster.drop_column("rebalance")
    op.drop_table("plan")
