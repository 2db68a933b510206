"""Accounts, tokens and rights; the seed."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from control import access, tables
from control.access import Principal
from control.seed import IDENTITIES, seed
from core.errors import Denied, NotFound
from core.states import Verb
from tests.rig import Rig


def test_the_seed_can_be_sown_again(rig: Rig) -> None:
    def count(c: sa.Connection) -> list[int]:
        found = (tables.cluster, tables.datastore, tables.user)
        return [c.execute(sa.select(sa.func.count()).select_from(t)).scalar_one() for t in found]

    before = rig.run(count)
    rig.run(lambda c: seed(c, "/somewhere/else"))
    assert rig.run(count) == before == [1, 1, len(IDENTITIES)]


def test_only_hashes_of_tokens_are_kept(rig: Rig) -> None:
    token = rig.run(access.ensure_admin)
    assert token is not None
    rows = rig.run(lambda c: c.execute(sa.select(tables.token)).all())
    assert not any(token in str(value) for row in rows for value in row)
    assert rig.run(lambda c: access.authenticate(c, token)).name == "admin"


def test_an_account_keeps_its_role(rig: Rig) -> None:
    assert rig.run(lambda c: access.named(c, "admin", "user")).role == "admin"
    with pytest.raises(NotFound):
        rig.run(lambda c: access.find(c, "none"))


@pytest.mark.parametrize(
    ("role", "verb", "owner", "allowed"),
    [
        ("admin", Verb.RETIRE, None, True),
        ("operator", Verb.DELETE, "somebody", True),
        ("user", Verb.DEPLOY, "me", True),
        ("user", Verb.DELETE, "somebody", False),
        ("user", Verb.ENROLL, None, False),
        ("user", Verb.ENROLL, "me", False),
        ("nobody", Verb.DEPLOY, "me", False),
    ],
)
def test_rights(role: str, verb: Verb, owner: str | None, allowed: bool) -> None:
    me = Principal("1", "me", role)
    assert access.may(me, verb, owner) is allowed
    if allowed:
        access.require(me, verb, owner, "it")
    else:
        with pytest.raises(Denied, match=f"me may not {verb} it"):
            access.require(me, verb, owner, "it")


def test_networks_and_the_like_are_for_administrators() -> None:
    access.require_admin(Principal("1", "me", "admin"), "change networks")
    with pytest.raises(Denied):
        access.require_admin(Principal("1", "me", "operator"), "change networks")
