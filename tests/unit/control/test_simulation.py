"""What a simulation answers: rejections and why, how few hosts do, hosts that come and go, learned lifetimes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from control.placement.model import Shape
from control.placement.weights import POLICIES
from control.simulation import arrivals
from control.simulation.answers import Question, answer, compare
from control.simulation.arrivals import Arrival
from control.simulation.fleet import Fleet, Group, Network, parse_group, parse_leaving, parse_network, parse_time
from control.simulation.lives import Exits, Lives
from control.simulation.run import Run
from core.errors import Invalid, NoFit
from core.states import HostState

HEADER = "name,arrival_s,lifetime_s,cpu,memory_mib"


def read(*lines: str, header: str = HEADER) -> list[Arrival]:
    return arrivals.read([header, *lines], "a.csv")


def ones(count: int, **about: Any) -> list[Arrival]:
    """Return instances of 4 cores and 4 GiB, one each second, that stay."""
    return [Arrival(f"i{n}", float(n), **{"lifetime_s": math.inf, "cpu_m": 4000, "memory_mib": 4096, **about})
            for n in range(count)]  # fmt: skip


def fleet(*texts: str, **about: Any) -> Fleet:
    return Fleet(tuple(map(parse_group, texts)), **about)


def test_a_file_is_read_in_the_order_of_time() -> None:
    late, early = "b,20,,0.5,512,me,web,container,app=x tier=y", "a,10,60,2,1024,,,,"
    found = read(late, "", early, header=HEADER + ",owner,template,kind,labels")
    assert found == [
        Arrival("a", 10, 60, 2000, 1024),
        Arrival("b", 20, math.inf, 500, 512, "me", "web", "container", (("app", "x"), ("tier", "y"))),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,1,2,3"], "line 2: 4 fields instead of 5"),
        (["a,1,2,3,4", "b,1,2,x,4"], "line 3: cpu 'x' is no number"),
        (["a,1,-2,3,4"], "line 2: lifetime_s '-2' is less than 0"),
        (["a,1,2,0,4"], "line 2: cpu '0' is less than 0.001"),
        (["a,nan,2,1,4"], "line 2: arrival_s 'nan' is not finite"),
        ([",1,2,1,4"], "line 2: name '' is empty"),
        (["a,,2,1,4"] * 5, "line 2: arrival_s '' is no number; line 3: arrival_s '' is no number; line 4: "
                           "arrival_s '' is no number; and 2 lines more"),
        ([], "there are no arrivals in it"),
    ],
)  # fmt: skip
def test_wrong_lines_are_told(lines: list[str], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(*lines)
    assert caught.value.message == f"a.csv: {said}"


def test_disks_images_and_networks_are_read() -> None:
    header = HEADER + ",disk_gib,image,image_gib,network"
    assert read("a,1,2,1,512,1.5,debian,0.5,lan", "b,1,2,1,512,,,,", header=header) == [
        Arrival("a", 1, 2, 1000, 512, disk_mib=1536, image="debian", image_mib=512, network="lan"),
        Arrival("b", 1, 2, 1000, 512),
    ]
    with pytest.raises(Invalid, match="disk_gib '-1' is less than 0"):
        read("a,1,2,1,512,-1,,,", header=header)


@pytest.mark.parametrize(
    ("about", "hosts", "said"),
    [
        ({"disk_mib": 10}, ["1x8c/8GiB"], "takes room on a disk"),
        ({"image_mib": 10, "image": "a"}, ["1x8c/8GiB"], "takes room on a disk"),
        ({"network": "lan"}, ["1x8c/8GiB"], "network lan, which is not there"),
        ({}, ["1x8c/8GiB", "1x8c/8GiB/1TiB"], "some hosts have disks"),
    ],
)  # fmt: skip
def test_what_is_said_of_no_host_is_refused(about: dict[str, Any], hosts: list[str], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        answer(Question(ones(1, **about), fleet(*hosts)))


def test_an_image_has_one_size() -> None:
    come = [*ones(1, image="a", image_mib=5), *ones(1, image="a", image_mib=6)]
    with pytest.raises(Invalid, match="another size"):
        answer(Question(come, fleet("1x8c/8GiB/1TiB")))


def test_a_full_disk_and_no_address_left_reject_and_say_so() -> None:
    told = answer(Question(ones(3, disk_mib=40 * 1024), fleet("1x64c/64GiB/100GiB")))
    assert (told["placed"], told["rejected"]) == (2, 1)
    assert "disk on h0" in told["first_rejection"]["why"]
    lan = (Network("lan", 1, (("cluster", "edge"),)),)
    told = answer(Question(ones(2, network="lan"), fleet("1x64c/64GiB", "1x64c/64GiB,cluster=edge", networks=lan)))
    assert (told["placed"], told["rejected"]) == (1, 1)
    assert "network lan has 0 of 1 addresses free" in told["first_rejection"]["why"]
    gone = ones(2, network="lan", lifetime_s=0.5)
    assert answer(Question(gone, fleet("1x8c/8GiB,cluster=edge", networks=lan)))["placed"] == 2, "it is given back"


def test_a_copy_of_an_image_is_fetched_once_and_takes_room() -> None:
    come = ones(3, image="a", image_mib=30 * 1024, disk_mib=20 * 1024, lifetime_s=0.5)
    told = answer(Question(come, fleet("1x8c/8GiB/60GiB")))
    assert (told["placed"], told["image_copies"]) == (3, 1)
    assert answer(Question(come, fleet("1x8c/8GiB/49GiB")))["placed"] == 0
    small = ones(4, image="a", cpu_m=1000, memory_mib=1024)
    copies = {name: answer(Question(small, fleet("4x8c/8GiB"), policy=name))["image_copies"] for name in POLICIES}
    assert (copies["image-local"], copies["spread"]) == (1, 4)


def test_no_number_of_hosts_makes_addresses() -> None:
    lan = (Network("lan", 3),)
    with pytest.raises(NoFit, match="something else runs out"):
        answer(Question(ones(4, network="lan"), fleet("1x8c/8GiB", networks=lan), find_min_hosts=True))
    fewest = answer(Question(ones(3, disk_mib=60 * 1024), fleet("1x64c/64GiB/100GiB"), find_min_hosts=True))
    assert fewest["min_hosts"] == 3


@pytest.mark.parametrize("header", ["name,arrival_s,cpu,memory_mib", HEADER + ",colour", HEADER + ",cpu"])
def test_a_wrong_header_is_told(header: str) -> None:
    with pytest.raises(Invalid, match="line 1: the header"):
        read("a,1,2,3,4", header=header)


def test_sizes_and_times() -> None:
    assert parse_group("300x64c/192GiB") == Group(300, 64_000, 192 * 1024)
    assert parse_group("1.5c/512MiB,cluster=edge,rack=r1@2h") == Group(1, 1500, 512, "edge", (("rack", "r1"),), 7200.0)
    assert [parse_time(text) for text in ("90", "1.5m", "2d")] == [90, 90, 172_800]
    assert parse_group("2x64c/192GiB/2TiB,rack=r1") == Group(
        2, 64_000, 192 * 1024, labels=(("rack", "r1"),), disk_mib=2 * 1024**2
    )
    assert parse_network("lan=250,cluster=edge") == Network("lan", 250, (("cluster", "edge"),))
    for text in ("lan", "lan=", "lan=-1", "=5"):
        with pytest.raises(Invalid, match="is no network"):
            parse_network(text)
    for text in ("64/192GiB", "4c/4GiB/", "4c/4GiB/0GiB", "4c/4GiB/2parsecs", "0x4c/4GiB", "4c/4GiB@soon",
                 "4c/4parsecs"):  # fmt: skip
        with pytest.raises(Invalid):
            parse_group(text)
    with pytest.raises(Invalid):
        parse_leaving("2", HostState.FENCED)


def test_the_first_rejection_is_explained_and_ends_it_if_wanted() -> None:
    question = Question(ones(5), fleet("2x8c/8GiB"), until_rejection=True, fit=Shape("vm", 1000, 1024, 0))
    found = answer(question)
    assert (found["placed"], found["rejected"], found["fits"]) == (4, 1, 0)
    assert found["first_rejection"]["name"] == "i4"
    assert found["first_rejection"]["why"].startswith("cpu on h0, h1 (needs 4 cores, 0 of 8 are free")
    assert found["first_rejection"]["change"] == "one more host like h0 would hold it"


def test_how_few_hosts_do() -> None:
    for count, arrival in ((8, ones(16)), (1, ones(16, lifetime_s=1.5))):
        found = answer(Question(arrival, fleet("1x8c/8GiB"), find_min_hosts=True))
        assert found["min_hosts"] == count
    assert answer(Question(ones(4), fleet("1x8c/8GiB", spare=0)))["min_hosts"] is None
    with_others = answer(Question(ones(16), fleet("1x8c/8GiB", "1x16c/64GiB"), find_min_hosts=True))
    assert with_others["min_hosts"] == 6
    spared = answer(Question(ones(16), fleet("3x8c/8GiB", spare=2), find_min_hosts=True))
    assert spared["min_hosts"] == 10


def test_no_number_of_hosts_holds_what_is_larger_than_one() -> None:
    with pytest.raises(NoFit, match="no number of these hosts would do"):
        answer(Question(ones(1), fleet("9x2c/8GiB"), find_min_hosts=True))


def test_means_leave_out_the_first_day() -> None:
    day = 86_400.0
    come = [Arrival("a", 0, math.inf, 4000, 4096), Arrival("b", day, day / 4, 8000, 8192),
            Arrival("c", 2 * day, math.inf, 1000, 1024)]  # fmt: skip
    # The first day does not count; then two of four hosts are empty for a quarter of a day, three for the rest.
    assert answer(Question(come, fleet("4x8c/8GiB")))["empty_hosts_mean_percent"] == pytest.approx(50 / 4 + 75 * 3 / 4)
    assert answer(Question(come[:2], fleet("4x8c/8GiB")))["empty_hosts_mean_percent"] is None


def test_spare_hosts_step_in_for_lost_ones() -> None:
    lost = (parse_leaving("1@9", HostState.FENCED),)
    assert answer(Question(ones(4), fleet("2x8c/8GiB", leaving=lost)))["stranded"] == 2
    found = answer(Question(ones(4), fleet("3x8c/8GiB", leaving=lost, spare=1)))
    assert (found["stranded"], found["rejected"], found["moved"]) == (0, 0, 2)


def test_what_fits_nowhere_else_stays_on_a_drained_host_and_new_hosts_come() -> None:
    drained = (parse_leaving("1@10", HostState.DRAINING),)
    assert answer(Question(ones(4), fleet("2x8c/8GiB", leaving=drained)))["stuck"] == 2
    later = fleet("2x8c/8GiB", "1x8c/8GiB@5", leaving=drained)
    found = answer(Question(ones(4), later))
    assert (found["stuck"], found["moved"], found["rejected"]) == (0, 2, 0)
    assert answer(Question(ones(7), later))["rejected"] == 1, "i4 comes a second before the new host"


def test_the_seed_chooses_who_is_lost() -> None:
    lost = (parse_leaving("1@20", HostState.FENCED),)
    gone = set()
    for seed in range(8):
        run = Run(ones(6), fleet("3x8c/8GiB", leaving=lost), seed=seed)
        run.all()
        gone.add(run.world.view.states.index(HostState.FENCED))
    assert gone == {0, 1, 2}


def test_all_policies_are_compared() -> None:
    found = {row["policy"]: row for row in compare(Question(ones(4, cpu_m=1000, memory_mib=1024), fleet("4x8c/8GiB")))}
    assert list(found) == list(POLICIES)
    assert (found["balanced"]["hosts_used_peak"], found["spread"]["hosts_used_peak"]) == (1, 4)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(Invalid, match="there is no policy 'first'"):
        answer(Question(ones(1), fleet("1x8c/8GiB"), policy="first"))


FIGURES = {
    "ages_s": [0, 100], "all": [50, 80], "flavours": {"4.0x4096": [10]}, "templates": {"web": [20, 30]},
    "owners": {"web": {"me": [40, 60]}},
}  # fmt: skip


def test_lives_are_told_by_the_first_group_that_is_there() -> None:
    lives = Lives(FIGURES)
    some = Arrival("a", 0, 0, 1000, 512)
    assert [lives.left_s(some, age) for age in (0, 99, 100, 500)] == [60, 60, 80, 80]
    assert lives.left_s(Arrival("a", 0, 0, 4000, 4096), 300) == 300, "as long again as it has lived"
    assert lives.left_s(Arrival("a", 0, 0, 1000, 512, "you", "web"), 0) == 60
    assert [bool(one) for one in (lives, Lives({}), Lives(None))] == [True, False, False]


def test_a_host_is_in_use_until_its_last_one_is_expected_to_leave() -> None:
    exits = Exits(2)
    exits.put(0, 1, 50.0)
    exits.put(0, 2, 80.0)
    assert exits.from_now(30).tolist() == [50, 0]
    exits.drop(0, 2)
    assert exits.from_now(30).tolist() == [20, 0]
    exits.drop(0, 1)
    assert exits.from_now(30).tolist() == [0, 0]


def test_what_leaves_soon_goes_where_others_leave_soon() -> None:
    """Two hosts alike, one of long-lived, one of short-lived instances: told of lives, a short one joins the short."""
    lives = Lives({"ages_s": [0], "all": [9e5], "templates": {"short": [3600]}})
    come = [
        Arrival("long", 0, 9e5, 6000, 6144, template="long"),
        Arrival("short", 1, 3600, 6000, 6144, template="short"),
        Arrival("stays", 2, 9e5, 1000, 1024, template="long"),
    ]
    told = Run(come, fleet("2x8c/8GiB"), lives=lives).all()
    assert told.hosts["stays"] == told.hosts["long"]
