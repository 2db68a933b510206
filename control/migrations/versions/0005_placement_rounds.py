"""Rounds of placement, kept so that they can be done again."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"

_AT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")  # UTC, with microseconds
_BYTES = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")


def upgrade() -> None:
    options = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
    by_dialect: dict[str, Any] = {f"{d}_{key}": value for d in ("mysql", "mariadb") for key, value in options.items()}
    op.create_table(
        "placement_round", sa.Column("id", sa.String(20)), sa.Column("at", _AT, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False), sa.Column("view_id", sa.String(20), nullable=False),
        sa.Column("features_id", sa.String(20), nullable=False), sa.Column("policy", sa.String(63), nullable=False),
        sa.Column("data", _BYTES, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_placement_round"), **by_dialect,
    )  # fmt: skip
    op.create_index("ix_placement_round_at", "placement_round", ["at"])


def downgrade() -> None:
    op.drop_table("placement_round")
