"""Marks of hosts (control/marks.py); no index of nothing, and none that is the beginning of another one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_WITHIN = ("network_id", "instance_id")  # of leases: their unique constraints begin with these
_MAYBE = ("host_id", "datastore_id", "other_host_id")  # of instances


def upgrade() -> None:
    op.add_column("host", sa.Column("mark", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_host_mark", "host", ["live_name", "id", "version", "mark"])
    for column in _WITHIN:
        op.drop_index(f"ix_lease_{column}", "lease")
    if op.get_context().dialect.name in ("sqlite", "postgresql"):  # the others have no partial indexes
        for column in _MAYBE:
            op.drop_index(f"ix_instance_{column}", "instance")
            some = sa.text(f"{column} IS NOT NULL")
            op.create_index(f"ix_instance_{column}", "instance", [column], sqlite_where=some, postgresql_where=some)


def downgrade() -> None:
    if op.get_context().dialect.name in ("sqlite", "postgresql"):
        for column in _MAYBE:
            op.drop_index(f"ix_instance_{column}", "instance")
            op.create_index(f"ix_instance_{column}", "instance", [column])
    for column in _WITHIN:
        op.create_index(f"ix_lease_{column}", "lease", [column])
    op.drop_index("ix_host_mark", "host")
    op.drop_column("host", "mark")
