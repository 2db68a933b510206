"""The priority of an operation, so that higher ones are claimed first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("operation") as operation:
        operation.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="50"))


def downgrade() -> None:
    with op.batch_alter_table("operation") as operation:
        operation.drop_column("priority")
