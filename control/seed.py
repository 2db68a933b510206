"""The first rows of a new cloud. Safe to run at every start."""

from __future__ import annotations

import sqlalchemy as sa

from blueprints.cluster import ClusterSpec
from blueprints.datastore import DatastoreSpec
from control import access, clusters, datastores

LOCAL = "local"
# Who acts without a person's token: runs started in Prefect's UI, by schedule or by its API; repairs by reconcile.
IDENTITIES = {"admin": access.ADMIN, "prefect": access.OPERATOR, "reconciler": access.OPERATOR}


def seed(c: sa.Connection, datastore_path: str) -> None:
    """Make the cluster "default", the datastore "local" (a folder by that path on each host), and the identities."""
    people = {name: access.named(c, name, role) for name, role in IDENTITIES.items()}
    if clusters.differs(c, ClusterSpec(name=clusters.DEFAULT)) is None:
        clusters.ensure(c, people["admin"], ClusterSpec(name=clusters.DEFAULT))
    if not datastores.by_name(c, [LOCAL]):
        datastores.ensure(c, people["admin"], DatastoreSpec(name=LOCAL, path=datastore_path))
