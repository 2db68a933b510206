"""From tables to what a plan is made from, and from plans to what is stored: moves with what they rest on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import sqlalchemy as sa

from blueprints.plan import PlanSpec
from control import clusters, datastores, hosts, movable, moving, tables
from control.lifecycle import VERBS
from control.movable import Way
from control.placement.model import Ints, Shape, View
from control.placement.weights import DEFAULT
from control.placing_view import Cloud
from control.rebalance.model import Goal, Item, Kind, Move, Outcome, Scene
from control.rebalance.order import first_refused
from control.rebalance.planner import plan, standing
from control.rebalance.timing import Limits, eta_s, expected_s, usual_of
from core.errors import Conflict
from core.states import HostState, Verb

_T, _H, _C, _OP = tables.instance, tables.host, tables.cluster, tables.operation
_SIZES = ("cpu", "memory_mib", "disk_mib")
Row = Mapping[Any, Any]


@dataclass(frozen=True)
class World:
    """What a plan is made from. rows: instances on the hosts concerned, by id; ways: how they may be moved."""

    cloud: Cloud
    rows: Mapping[str, Row]
    ways: Mapping[str, Way]
    shapes: Mapping[str, Shape]
    shared: frozenset[str]  # those whose disks every target sees

    @property
    def view(self) -> View:
        return self.cloud.view


def look(c: sa.Connection, spec: PlanSpec, among: Collection[str] | None = None) -> World:
    """Return what there is, as far as a plan may be about it; among: on these hosts only, in whatever state they are.

    Raise NotFound, Conflict (the host cannot be emptied).
    """
    where = _of(c, spec) if among is None else [_H.c.live_name.in_(among)]
    rows = {
        row["id"]: row for row in c.execute(
            sa.select(
                _T, _H.c.name.label("host"), _H.c.driver, _H.c.capabilities, _C.c.name.label("cluster"),
                sa.exists().where(_OP.c.open_subject == sa.literal("instance/") + _T.c.id).label("busy"),
            ).where(_T.c.host_id == _H.c.id, _H.c.cluster_id == _C.c.id, _T.c.live_name.is_not(None), *where)
            .order_by(_T.c.id)
        ).mappings()
    }  # fmt: skip
    found = list(rows.values())
    ways = movable.ways(c, found, live=None if spec.cold else True)
    shapes = {
        one: replace(shape, leaves="") for one, shape in moving.shapes_for(c, Verb.MIGRATE, {}, found).items()
    }
    stores = datastores.by_id(c, {row["datastore_id"] for row in found if row["datastore_id"]})
    shared = frozenset(row["id"] for row in found if moving.is_shared(row, stores.get(row["datastore_id"])))
    cloud = Cloud(c, set(shapes.values()), lock=False)
    return World(cloud, rows, ways, shapes, shared)


def _of(c: sa.Connection, spec: PlanSpec) -> list[Any]:
    """Return the conditions on instances, hosts and clusters. Raise NotFound, Conflict."""
    if spec.cluster is not None:
        clusters.id_of(c, spec.cluster)
    within = [] if spec.cluster is None else [_C.c.name == spec.cluster]
    if spec.host is None:
        return [*within, _H.c.state == HostState.READY]
    host = hosts.get(c, spec.host)
    if host.state not in _EMPTIED:
        raise Conflict(
            f"host {host.name} is {host.state}: nothing can be moved off it", f"host/{host.name}",
            {"state": host.state}, f"rackflow host show {host.name} says why",
        )  # fmt: skip
    return [*within, _H.c.driver == host.driver]


_EMPTIED = (HostState.READY, HostState.DISABLED, HostState.DRAINING, HostState.MAINTENANCE)


def scenes(world: World, spec: PlanSpec, features: Mapping[str, Any]) -> list[Scene]:
    """Return the pools that are planned apart: by cluster and driver; to empty a host, all hosts with its driver."""
    view, full = world.view, _full(world.view, features)
    items: dict[int, list[Item]] = defaultdict(list)
    for item in _items(world, features):
        items[item.host].append(item)
    pools: dict[tuple[str, str], list[int]] = defaultdict(list)
    target = view.names.index(spec.host) if spec.host else None
    for h in range(len(view)):
        if target is not None:
            mine = view.drivers[h] == view.drivers[target] and (view.states[h] == HostState.READY or h == target)
            mine = mine and (spec.cluster is None or h == target or view.clusters[h] == spec.cluster)
        else:
            mine = view.states[h] == HostState.READY and spec.cluster in (None, view.clusters[h])
        if mine:
            pools["" if target is not None else view.clusters[h], view.drivers[h]].append(h)
    return [
        Scene(view, tuple(pool), tuple(item for h in pool for item in items[h]), full)
        for _, pool in sorted(pools.items())
    ]  # fmt: skip


def _full(view: View, features: Mapping[str, Any]) -> Ints:
    """Return the cores that are a full load: real ones where what instances use is known, else what is given away."""
    return view.cpus_m if features.get("instances") else view.cpu_limit_m


def _items(world: World, features: Mapping[str, Any]) -> list[Item]:
    index = {name: h for h, name in enumerate(world.view.names)}
    used: Mapping[str, float] = features.get("instances") or {}
    carried = {one: _carried(row, world.ways[one], one in world.shared) for one, row in world.rows.items()}
    by_driver: dict[str, list[int]] = defaultdict(list)
    for one, row in world.rows.items():
        by_driver[row["driver"]].append(carried[one])
    steps = features.get("steps") or ()
    usual = {driver: (median(mib), usual_of(steps, driver)) for driver, mib in by_driver.items()}
    found = []
    for one, row in world.rows.items():
        way, shape = world.ways[one], world.shapes[one]
        verb = Verb.MIGRATE_LIVE if way.live else Verb.MIGRATE
        names = [rule.name for rule in VERBS[verb].steps]
        stores = [] if one in world.shared else [n for n, i in world.cloud.stores.items() if i == row["datastore_id"]]
        found.append(Item(
            one, row["name"], index[row["host"]], shape, stores[0] if stores else "", carried[one],
            expected_s(verb, names, carried[one], *usual[row["driver"]]),
            round(1000 * used[one]) if one in used else shape.cpu_m, shape.memory_mib, bool(way.live),
            way.reason or ("it is being changed" if row["busy"] or row["other_host_id"] else ""),
        ))  # fmt: skip
    return found


def _carried(row: Row, way: Way, shared: bool) -> int:
    """Return the MiB that a move copies: memory of what runs, and disks that the target does not see."""
    return (row["memory_mib"] if way.live else 0) + (0 if shared else row["disk_mib"])


def made(
    spec: PlanSpec, world: World, features: Mapping[str, Any], *, most: int | None = None, policy: str = DEFAULT
) -> dict[str, Any]:
    """Return a plan as it is stored, but for id, state and who asked. Pure.

    most: moves at most; the first are kept. policy: the front-end's.
    """
    goal = Goal(Kind(spec.kind), spec.host or "", spec.threshold, policy)
    pools = scenes(world, spec, features)
    outcomes = [_cut(scene, plan(scene, goal, features), most) for scene in pools]
    moves = _moves(world, outcomes)
    ways = [(move["from"], move["to"], move["after"]) for move in moves]
    return {
        "kind": spec.kind, "host": spec.host or "", "cluster": spec.cluster or "",
        "parameters": spec.model_dump(mode="json", exclude_unset=True), "moves": moves,
        "effect": _effect(outcomes), "made_from": made_from(world, moves),
        "stays": _stays(spec, world, pools, outcomes), "method": _method(outcomes),
        "optimal": all(one.optimal for one in outcomes),
        "eta_s": eta_s(ways, [move["expected_s"] for move in moves], Limits()),
    }  # fmt: skip


def _cut(scene: Scene, outcome: Outcome, most: int | None) -> Outcome:
    """Return an outcome with its first moves only: they come before all that waits for them."""
    if most is None or len(outcome.moves) <= most:
        return outcome
    kept = outcome.moves[:most]
    at = {item.id: item.host for item in scene.items} | {move.item.id: move.target for move in kept}
    after = standing(scene, [at[item.id] for item in scene.items])
    return replace(outcome, moves=kept, after=after, optimal=False)


def _moves(world: World, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    names = world.view.names
    found: list[dict[str, Any]] = []
    for outcome in outcomes:
        first = len(found)
        for move in outcome.moves:
            found.append({
                "instance_id": move.item.id, "instance": move.item.name, "from": names[move.source],
                "to": names[move.target], "live": world.ways[move.item.id].live, "carried_mib": move.item.carried_mib,
                "expected_s": move.item.cost_s, "after": [first + n for n in move.after],
            })  # fmt: skip
    return found


def _effect(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return before and after over all pools."""
    return {
        when: {
            "hosts_used": sum(one.used for one in of), "empty_hosts": sorted(name for one in of for name in one.empty),
            "greatest_share": max((one.greatest for one in of), default=0.0),
            "spread": max((one.spread for one in of), default=0.0),
            "broken_wishes": [{"instance": name, "rule": rule} for one in of for name, rule in one.broken],
        }
        for when, of in (("before", [one.before for one in outcomes]), ("after", [one.after for one in outcomes]))
    }  # fmt: skip


def _method(outcomes: Sequence[Outcome]) -> str:
    used = {one.method for one in outcomes if one.moves} or {one.method for one in outcomes}
    return used.pop() if len(used) == 1 else "mixed" if used else "none"


def _stays(
    spec: PlanSpec, world: World, pools: Sequence[Scene], outcomes: Sequence[Outcome]
) -> dict[str, str]:
    """Return name -> why, of those that a plan leaves though it would have been free to move them."""
    found = {item.name: item.stays for scene in pools for item in scene.items if item.stays and (
        spec.host is None or world.view.names[item.host] == spec.host
    )}  # fmt: skip
    for outcome in outcomes:
        found |= {note.partition(": ")[0]: note.partition(": ")[2] for note in outcome.notes}
    if spec.host is not None:
        moved = {move.item.id for outcome in outcomes for move in outcome.moves}
        for scene in pools:
            found |= {
                item.name: "no other host has room for it" for item in scene.items
                if world.view.names[item.host] == spec.host and item.id not in moved and item.name not in found
            }  # fmt: skip
    return dict(sorted(found.items()))


def made_from(world: World, moves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a plan rests on: the instances that it moves and the hosts that it moves them between."""
    view = world.view
    index = {name: h for h, name in enumerate(view.names)}
    concerned = sorted({move[end] for move in moves for end in ("from", "to")})
    ids = sorted({move["instance_id"] for move in moves})
    return {
        "instances": {one: _instance(world, one) for one in ids if one in world.rows},
        "hosts": {name: _host(view, index[name]) for name in concerned if name in index},
    }


def _instance(world: World, one: str) -> dict[str, Any]:
    row = world.rows[one]
    return {key: row[key] for key in ("name", "host", "state", *_SIZES)}


def _host(view: View, h: int) -> dict[str, Any]:
    return {
        "state": str(view.states[h]), "cpus": int(view.cpus_m[h]) / 1000, "cpu_limit": int(view.cpu_limit_m[h]) / 1000,
        "memory_limit_mib": int(view.memory_limit_mib[h]),
    }  # fmt: skip


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what a plan rests on and is not so any more. Pure."""
    found = []
    for noun in ("instance", "host"):
        for key, was in before[f"{noun}s"].items():
            name, found_now = was.get("name", key), now[f"{noun}s"].get(key)
            if found_now is None:
                found.append(f"{noun} {name} is gone from its host" if noun == "instance" else f"host {name} is gone")
                continue
            found += [
                f"{noun} {name}: {field} was {value}, is {found_now[field]}"
                for field, value in was.items() if found_now[field] != value
            ]  # fmt: skip
    return found


def changed(c: sa.Connection, row: Row) -> list[str]:
    """Return in words what a stored plan rests on and is not so any more, or does not allow it any more."""
    spec = PlanSpec.model_validate(row["parameters"])
    world = look(c, spec, row["made_from"]["hosts"])
    found = differences(row["made_from"], made_from(world, row["moves"]))
    return found or _newcomers(world, row) or _no_room(world, row["moves"])


def _newcomers(world: World, row: Row) -> list[str]:
    """Return who came to hosts that were to be empty."""
    moved = {move["instance_id"] for move in row["moves"]}
    left = {move["from"] for move in row["moves"]} & set(row["effect"]["after"]["empty_hosts"])
    if row["host"]:
        left.add(row["host"])
    return [
        f"instance {one['name']} came to host {one['host']}, which was to be empty" for one in world.rows.values()
        if one["host"] in left and one["id"] not in moved and one["name"] not in row["stays"]
    ]  # fmt: skip


def _no_room(world: World, moves: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the first move for which there is no room any more when those before it were made."""
    items = {item.id: item for item in _items(world, {})}
    index = {name: h for h, name in enumerate(world.view.names)}
    planned = [Move(items[one["instance_id"]], index[one["from"]], index[one["to"]]) for one in moves]
    at = first_refused(world.view, planned)
    return [] if at is None else [f"host {moves[at]['to']} does not take instance {moves[at]['instance']} any more"]
