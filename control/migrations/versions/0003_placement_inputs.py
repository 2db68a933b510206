"""What placement is fed from: overcommit that is learned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("cluster") as cluster:
        cluster.add_column(sa.Column("cpu_learned_max", sa.Double(), nullable=False, server_default="0"))
    with op.batch_alter_table("host") as host:
        host.add_column(sa.Column("cpu_learned_max", sa.Double()))


def downgrade() -> None:
    with op.batch_alter_table("host") as host:
        host.drop_column("cpu_learned_max")
    with op.batch_alter_table("cluster") as cluster:
        cluster.drop_column("cpu_learned_max")
