"""What is asked for when a datastore is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from blueprints.common import Labels, Name, Spec


class DatastoreSpec(Spec):
    """A place for images and volumes: a folder by that path on each host of the cluster."""

    name: Name
    kind: Literal["dir"] = "dir"
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]+$")]
    shared: bool = Field(default=False, description="the same folder is seen by all hosts of the cluster")
    cluster: Name | None = None
    overcommit: Annotated[float, Field(ge=1.0, le=20.0)] = 1.0
    labels: Labels = Field(default_factory=dict)
