"""Power plans: whatever the hosts, the policy and the need, what is on stays enough and what is in use stays on."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from blueprints.power import PowerSpec
from control.power_plan import Candidate, is_enough, plan

STATES = ((True, False), (False, True), (False, False))  # awake, asleep, neither
HOSTS = st.lists(
    st.builds(
        lambda state, cpu, memory, may, idle_s, switched_s: Candidate(
            "", state[0], state[1], {"cpu": cpu, "memory_mib": memory}, may and state[0], idle_s, switched_s
        ),
        st.sampled_from(STATES), st.integers(1, 64), st.integers(1, 4096), st.booleans(), st.integers(0, 9000),
        st.integers(0, 9000),
    ),
    max_size=12,
).map(lambda found: [replace(one, name=f"h{n}") for n, one in enumerate(found)])  # fmt: skip
POLICIES = st.builds(
    PowerSpec, idle_minutes=st.integers(1, 120), rest_minutes=st.integers(1, 120), min_awake=st.integers(1, 4),
    spare_hosts=st.integers(0, 3), headroom=st.sampled_from([0.0, 0.2, 1.0]),
    sleep_between=st.sampled_from([None, "20:00-06:00", "08:00-17:30"]),
)  # fmt: skip
NEEDED = st.builds(lambda cpu, memory: {"cpu": cpu, "memory_mib": memory}, st.integers(0, 200), st.integers(0, 9000))
MINUTES = st.integers(0, 1439)


@given(HOSTS, POLICIES, NEEDED, MINUTES)
def test_a_sleep_never_breaks_what_must_stay_on(
    hosts: list[Candidate], policy: PowerSpec, needed: dict[str, int], minute: int
) -> None:
    change = plan(hosts, policy, needed, minute)
    by_name = {one.name: one for one in hosts}
    left = [one for one in hosts if one.awake and one.name not in change.sleep]
    if change.sleep:
        assert is_enough(left, policy, needed)
        assert policy.may_sleep_at(minute)
        assert not change.wake
    for name in change.sleep:
        one = by_name[name]
        assert one.awake
        assert one.may_sleep
        assert one.idle_s >= policy.idle_minutes * 60
        assert one.switched_s >= policy.rest_minutes * 60


@given(HOSTS, POLICIES, NEEDED, MINUTES)
def test_what_is_short_wakes_until_it_is_enough_or_all_are_on(
    hosts: list[Candidate], policy: PowerSpec, needed: dict[str, int], minute: int
) -> None:
    change = plan(hosts, policy, needed, minute)
    awake = [one for one in hosts if one.awake]
    woken = [one for one in hosts if one.name in change.wake]
    assert all(one.asleep for one in woken)
    assert len(woken) == len(change.wake)
    if is_enough(awake, policy, needed):
        assert not woken
    else:
        assert is_enough([*awake, *woken], policy, needed) or len(woken) == sum(one.asleep for one in hosts)


@given(HOSTS, POLICIES, NEEDED, MINUTES)
def test_a_plan_that_was_carried_out_is_followed_by_none(
    hosts: list[Candidate], policy: PowerSpec, needed: dict[str, int], minute: int
) -> None:
    change = plan(hosts, policy, needed, minute)
    after = [
        replace(one, awake=False, asleep=True, may_sleep=False) if one.name in change.sleep
        else replace(one, awake=True, asleep=False, may_sleep=False) if one.name in change.wake
        else one
        for one in hosts
    ]  # fmt: skip
    again = plan(after, policy, needed, minute)
    assert not again.wake
    assert not again.sleep or change.wake
