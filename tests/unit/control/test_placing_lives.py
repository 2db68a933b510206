"""What was learned of lives is used only where it is good, and from the narrowest group that is known."""

from __future__ import annotations

from typing import Any

import pytest

from control import decisions, moving
from control.placing_lives import expected_s, rounded_s
from core.states import Verb
from tests.rig import Rig

KNOWN: dict[str, Any] = {
    "version": 3, "used": ["lifetime", "residual life"],
    "lifetimes": {
        "ages_s": [0, 60, 3600], "all": [100, 200, 30_000], "flavours": {"1.0x256": [900, 900, 900]},
        "templates": {"web": [3600, 3600, 7200]}, "owners": {"web": {"ann": [60, 120, 240]}},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("about", "age_s", "seconds"),
    [
        (("web", "ann", 1.0, 256), 0, 60), (("web", "bob", 1.0, 256), 0, 3840), (("db", "bob", 1, 256), 0, 960),
        (("db", "bob", 2, 256), 0, 120), ((None, "bob", 2, 256), 0, 120),
        (("web", "ann", 1.0, 256), 90, 120), (("web", "ann", 1.0, 256), 1e9, 240),
    ],
)  # fmt: skip
def test_the_narrowest_group_counts(about: tuple[Any, ...], age_s: float, seconds: int) -> None:
    assert expected_s(KNOWN, *about, age_s) == seconds


@pytest.mark.parametrize(("used", "age_s"), [([], 0), (["residual life"], 0), (["lifetime"], 60), (["use"], 0)])
def test_what_did_not_beat_its_naive_answer_says_nothing(used: list[str], age_s: float) -> None:
    assert expected_s({**KNOWN, "used": used}, "web", "ann", 1.0, 256, age_s) == 0


def test_lives_are_rounded_so_that_shapes_stay_few() -> None:
    assert len({rounded_s(seconds) for seconds in range(0, 30 * 86400, 17)}) < 20
    assert all(seconds <= rounded_s(seconds) <= max(60, 2 * seconds) for seconds in (1, 59, 61, 3600, 99_999))


def test_what_outlives_a_host_goes_where_it_does_not(cloud: Rig) -> None:
    for host in ("h1", "h2"):
        cloud.deploy(f"on-{host}", requirements={"host": host})
    ops = cloud.ask("web", count=1)
    assert ops[0].subject_name == "web-1"
    hosts = {"h1": {"exit_s": 60}, "h2": {"exit_s": 10_000}}
    (outcome,) = cloud.place(cloud.claim(), {**KNOWN, "hosts": hosts})
    assert outcome.host == "h2", "it is expected to live for an hour"
    told = cloud.run(lambda c: decisions.newest(c, cloud.show("web-1")["id"]))
    assert told["shape"]["lifetime_s"] == 3840
    assert {e["host"]: e["parts"]["lifetime"] for e in told["hosts"]} == {"h1": pytest.approx(0.05), "h2": 0.0}


def test_one_that_moves_is_judged_by_its_age(cloud: Rig) -> None:
    cloud.deploy("web")
    cloud.submit(Verb.MIGRATE, {"instances": ["web"]})
    (op,) = cloud.claim()
    features = {**KNOWN, "lifetimes": {**KNOWN["lifetimes"], "ages_s": [0, 0.5, 3600], "flavours": {}}}
    cloud.run(lambda c: moving.reserve(c, op, features))
    told = cloud.run(lambda c: decisions.newest(c, cloud.show("web")["id"]))
    assert told["shape"]["lifetime_s"] == rounded_s(200)


def test_history_knows_by_what_name_instances_were_asked_for(cloud: Rig) -> None:
    cloud.deploy("web", count=2)
    cloud.deploy("alone")
    told = {(e["instance"], e["template"]) for e in cloud.events("lifecycle")}
    assert told == {("web-1", "web"), ("web-2", "web"), ("alone", "tiny")}
