"""What Prefect's forms offer."""

from __future__ import annotations

import pytest
from prefect.utilities.callables import parameter_schema

import tasks.forms
from drivers.registry import Driver, drivers
from flows.enroll import enroll


def test_a_form_offers_the_drivers_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"xen": Driver("xen", "xen.driver", "rackflow-xen 1"), "odd": Driver("odd", "odd", "odd 1", "of contract 2")}
    monkeypatch.setattr(tasks.forms, "drivers", lambda: drivers() | more)
    asked = parameter_schema(enroll).properties["driver"]
    assert (asked["enum"][0], asked["default"]) == ("auto", "auto")
    assert {"kvm", "lxd", "esxi", "firecracker", "xen"} <= set(asked["enum"])
    assert not {"fake", "odd"} & set(asked["enum"])
