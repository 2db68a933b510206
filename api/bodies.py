"""What the API is asked with, besides the specs of blueprints."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from fastapi import Body
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from api.errors import MANY, ONE
from blueprints.change import PARAMETERS
from blueprints.cluster import ClusterSpec
from blueprints.datastore import DatastoreSpec
from blueprints.host import HostSpec
from blueprints.image import ImageSpec
from blueprints.instance import InstanceSpec
from blueprints.machine import MachineSpec
from blueprints.network import NetworkSpec
from blueprints.plan import PlanSpec
from blueprints.reservation import ReservationSpec
from core.states import Verb

S = TypeVar("S")


def _one_or_many(value: Any) -> str:
    return MANY if isinstance(value, list) else ONE


OneOrMany = Annotated[
    Annotated[S, Tag(ONE)] | Annotated[Annotated[list[S], Field(min_length=1, max_length=10_000)], Tag(MANY)],
    Discriminator(_one_or_many),
]


def as_list(value: S | list[S]) -> list[S]:
    """Return a list for a spec or a list of them."""
    return value if isinstance(value, list) else [value]


def _examples(**specs: dict[str, Any]) -> Any:
    return Body(openapi_examples={name.replace("_", " "): {"value": value} for name, value in specs.items()})


Instances = Annotated[
    OneOrMany[InstanceSpec],
    _examples(
        a_VM={"name": "web", "image": "debian", "cpu": 2, "memory": "2GiB", "disk": "10GiB"},
        three_containers={"name": "worker", "image": "busybox", "cpu": 0.5, "memory": "128MiB", "count": 3},
    ),
]
Hosts = Annotated[
    OneOrMany[HostSpec],
    _examples(a_host={"name": "h1", "address": "10.0.0.11", "user": "root", "fingerprint": "SHA256:Gq3b…"}),
]
Machines = Annotated[
    OneOrMany[MachineSpec],
    _examples(a_machine={"name": "m1", "bmc": "https://10.0.0.1", "user": "admin", "password_file": "/etc/bmc"}),
]
Images = Annotated[
    OneOrMany[ImageSpec],
    _examples(an_image={"name": "debian", "kind": "vm", "source": "https://example.org/debian-12.qcow2"}),
]
NewCluster = Annotated[ClusterSpec, _examples(a_cluster={"name": "east", "cpu_overcommit": 4.0})]
NewReservation = Annotated[
    ReservationSpec,
    _examples(a_hold={
        "name": "launch", "cluster": "default", "begins_at": "2030-01-01T00:00:00Z", "ends_at": "2030-01-08T00:00:00Z",
        "cpu": 64, "memory": "128GiB",
    }),
]  # fmt: skip
NewDatastore = Annotated[DatastoreSpec, _examples(a_datastore={"name": "fast", "path": "/srv/rackflow"})]
NewNetwork = Annotated[
    NetworkSpec,
    _examples(a_network={
        "name": "lan", "bridge": "br0", "subnet": "10.1.0.0/24", "gateway": "10.1.0.1", "default_for": ["vm"],
        "ranges": [{"first": "10.1.0.100", "last": "10.1.0.200"}],
    }),
]  # fmt: skip

NewPlan = Annotated[
    PlanSpec,
    _examples(
        even={"kind": "rebalance"}, few_hosts={"kind": "consolidate", "cluster": "default"},
        one_host_emptied={"kind": "evacuate", "host": "h1"},
    ),
]


class Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Exec(Wanted):
    argv: Annotated[list[str], Field(min_length=1, examples=[["uname", "-a"]])]
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    stdin: str = ""


class OnHosts(Wanted):
    hosts: list[str] = Field(default=[], description="names; none means all that it concerns")


class Apply(Wanted):
    blueprint: dict[str, Any] = Field(examples=[{"instances": [{"name": "web", "image": "debian", "count": 2}]}])
    prune: bool = Field(default=False, description="delete instances of a count that was lowered")
    dry_run: bool = False


class Plan(Wanted):
    blueprint: dict[str, Any]
    prune: bool = False


class Query(Wanted):
    sql: Annotated[str, Field(min_length=1, max_length=100_000, examples=["SELECT * FROM step_durations"])]
    limit: Annotated[int, Field(ge=1, le=100_000)] = 1000


class Mark(Wanted):
    state: Literal["running", "off", "failed"] = Field(description="as it was found")
    reason: Annotated[str, Field(max_length=500)] = ""


class Console(Wanted):
    kind: Literal["serial", "vnc", "ticket"] = "serial"


class Policy(Wanted):
    policy: Literal["repair", "adopt", "ignore", "alert"]


class Enabled(Wanted):
    enabled: bool


def _of_instances(verb: Any) -> Any:
    if verb not in list(PARAMETERS):  # a list: it may be of any type
        raise ValueError(f"must be a verb on instances ({', '.join(PARAMETERS)}), found {verb!r}")
    return verb


class NewSchedule(Wanted):
    """When: at (once), every_s (again and again, first at `at`), or after_start_s (after each start)."""

    instance: str = Field(description="name or id")
    verb: Annotated[Verb, BeforeValidator(_of_instances)] = Field(
        description="a verb on instances", examples=["backup"]
    )
    parameters: dict[str, Any] = Field(default={}, description="of the verb, as at /v1/instances/{name}/VERB")
    at: AwareDatetime | None = Field(default=None, examples=["2030-01-01T03:00:00Z"])
    every_s: Annotated[int, Field(ge=60, le=366 * 86400)] | None = None
    after_start_s: Annotated[int, Field(ge=0, le=366 * 86400)] | None = None
