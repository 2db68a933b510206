"""Clusters that switch idle hosts off, and what is known of when hosts were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for table in ("cluster", "host"):
        with op.batch_alter_table(table) as changed:
            changed.add_column(sa.Column("power", sa.JSON()))


def downgrade() -> None:
    for table in ("host", "cluster"):
        with op.batch_alter_table(table) as changed:
            changed.drop_column("power")
