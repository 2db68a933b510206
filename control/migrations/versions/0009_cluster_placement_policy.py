"""By which policy the hosts of a cluster are compared."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("cluster") as cluster:
        cluster.add_column(sa.Column("placement_policy", sa.String(63)))


def downgrade() -> None:
    with op.batch_alter_table("cluster") as cluster:
        cluster.drop_column("placement_policy")
