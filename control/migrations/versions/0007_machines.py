"""Machines with a BMC: how to reach it, what was seen of them, and the rules that sort and check them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"

_AT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")  # UTC, with microseconds


def upgrade() -> None:
    options = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
    by_dialect: dict[str, Any] = {f"{d}_{key}": value for d in ("mysql", "mariadb") for key, value in options.items()}
    op.create_table(
        "machine", sa.Column("id", sa.String(20)), sa.Column("name", sa.String(63), nullable=False),
        sa.Column("live_name", sa.String(63)), sa.Column("live_bmc", sa.String(255)),
        sa.Column("live_serial", sa.String(128)), sa.Column("sealed_password", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False), sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False), sa.Column("classified", sa.JSON, nullable=False),
        sa.Column("checks", sa.JSON, nullable=False), sa.Column("error", sa.JSON),
        sa.Column("created_at", _AT, nullable=False), sa.Column("updated_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_machine"),
        *(sa.UniqueConstraint(column, name=f"uq_machine_{column}")
          for column in ("live_name", "live_bmc", "live_serial")), **by_dialect,
    )  # fmt: skip
    op.create_index("ix_machine_state", "machine", ["state"])
    op.create_table(
        "machine_mac", sa.Column("mac", sa.String(64)), _machine("machine_mac"),
        sa.PrimaryKeyConstraint("mac", name="pk_machine_mac"), **by_dialect,
    )  # fmt: skip
    op.create_table(
        "machine_inventory", sa.Column("id", sa.String(20)), _machine("machine_inventory"),
        sa.Column("inventory", sa.JSON, nullable=False), sa.Column("changes", sa.JSON, nullable=False),
        sa.Column("at", _AT, nullable=False), sa.PrimaryKeyConstraint("id", name="pk_machine_inventory"), **by_dialect,
    )  # fmt: skip
    for table in ("machine_mac", "machine_inventory"):
        op.create_index(f"ix_{table}_machine_id", table, ["machine_id"])
    op.create_table(
        "machine_rule", sa.Column("name", sa.String(63)), sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("position", sa.Integer, nullable=False), sa.Column("spec", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_machine_rule"), **by_dialect,
    )  # fmt: skip


def _machine(table: str) -> sa.Column[str]:
    key = sa.ForeignKey("machine.id", name=f"fk_{table}_machine_id")
    return sa.Column("machine_id", sa.String(20), key, nullable=False)


def downgrade() -> None:
    for table in ("machine_rule", "machine_inventory", "machine_mac", "machine"):
        op.drop_table(table)
