"""What all tests share: their order, the list of live suites at the end, and a lab for those that need hosts."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from bench.cloud import Cloud, cloud
from tests import books, labs, stages
from tests.labs import Lab

_SUITES = pytest.StashKey[dict[str, set[str]]]()
_DEFAULT_DIR = "/var/tmp/rackflow-lab"


def pytest_configure(config: pytest.Config) -> None:
    """Hear SIGINT again: a shell that runs the tests in the background has it ignored, in all their children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also what takes minutes and shows little that others do not")
    parser.addoption("--part", choices=stages.PARTS, help="only what needs no services, or only the others")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    stages.mark(items, slow=config.getoption("--slow"))
    if part := config.getoption("--part"):
        items[:], others = stages.split(items, part)
        config.hook.pytest_deselected(items=others)
    items.sort(key=stages.order)
    config.stash[_SUITES] = stages.staged(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    result = yield
    stages.stop_between_stages(item, nextitem)
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    suites = config.stash.get(_SUITES, {})
    if suites and not config.option.collectonly:
        terminalreporter.section("live suites, and those with databases or Prefect")
        for line in stages.suite_lines(suites, terminalreporter.stats):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _books_are_true() -> Iterator[None]:
    with books.checked():
        yield


@pytest.fixture(scope="session")
def lab_alone() -> Iterator[bool]:
    """The machine's lab, for this run alone; False where RACKFLOW_TEST_KEEP_LAB says that one stands and stays."""
    if os.environ.get("RACKFLOW_TEST_KEEP_LAB") == "1":
        yield False
    else:
        with labs.alone():
            yield True


@pytest.fixture(scope="session")
def lab(lab_alone: bool) -> Iterator[Lab]:
    """Two KVM and two LXD hosts, their LXD not initialised; removed at the end.

    RACKFLOW_TEST_KEEP_LAB=1 uses the lab in LAB_DIR, brings it up if need be, and leaves it: for quick repeats.
    """
    found = Lab(labs.TEST_DIR if lab_alone else Path(os.environ.get("LAB_DIR") or _DEFAULT_DIR))
    found.call("up", "kvm:2", "lxd:2")
    yield found
    if lab_alone:
        found.call("down")
        found.call("check")


@pytest.fixture(scope="session")
def front_end(lab: Lab) -> Iterator[Cloud]:
    """A rackflow over the lab, by the command line; it reconciles every 15 s, so that tests need not wait a minute."""
    base = Path("/var/tmp/rackflow-test")
    with cloud(base=base, lab_dir=lab.dir, reconcile_every_s="15", domain_type="qemu") as found:
        yield found
