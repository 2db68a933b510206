"""Who asks, and what they may: accounts, tokens (only hashes are kept), a table of rights."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from blueprints.change import PARAMETERS
from control import sql, tables
from core.clock import now
from core.errors import Denied, NotFound
from core.ids import new_id
from core.states import Verb

ADMIN = "admin"
OPERATOR = "operator"  # every verb, on everything; but no change of networks, datastores, clusters, accounts
USER = "user"
_PLACES = {Verb.MIGRATE, Verb.FAILOVER}  # where something runs is the operator's matter
_OWN = frozenset({Verb.DEPLOY, Verb.TEST_BACKUP, Verb.DROP_BACKUP, *PARAMETERS} - _PLACES)
# role -> verbs on what is one's own, verbs on what belongs to others or to the cloud
RIGHTS: dict[str, tuple[frozenset[Verb], frozenset[Verb]]] = {
    ADMIN: (frozenset(Verb), frozenset(Verb)),
    OPERATOR: (frozenset(Verb), frozenset(Verb)),
    USER: (_OWN, frozenset()),
}
_TOKEN, _ACCOUNT = tables.token, tables.user
_HOLDER = sa.select(_ACCOUNT.c.id, _ACCOUNT.c.name, _ACCOUNT.c.role, _TOKEN.c.expires_at).where(
    _TOKEN.c.user_id == _ACCOUNT.c.id, _TOKEN.c.sha256 == sa.bindparam("sha256")
)


@dataclass(frozen=True)
class Principal:
    """Who asks. role: admin or user."""

    id: str
    name: str
    role: str


def may(principal: Principal, verb: Verb, owner: str | None) -> bool:
    """Return whether the verb is allowed on something of owner's; None: it belongs to the cloud."""
    own, others = RIGHTS.get(principal.role, (frozenset(), frozenset()))
    return verb in (own if owner == principal.name else others)


def require(principal: Principal, verb: Verb, owner: str | None, subject: str) -> None:
    """Raise Denied unless `may`."""
    if not may(principal, verb, owner):
        raise Denied(
            f"{principal.name} may not {verb} {subject}", subject,
            {"role": principal.role, "owner": owner}, "ask an administrator",
        )  # fmt: skip


def require_admin(principal: Principal, what: str) -> None:
    """Raise Denied for everybody but administrators. what: "change networks"."""
    if principal.role != ADMIN:
        raise Denied(f"{principal.name} may not {what}", "", {"role": principal.role}, "ask an administrator")


def sees_all(principal: Principal) -> bool:
    """Return whether the instances and operations of others are shown."""
    return principal.role in (ADMIN, OPERATOR)


def named(c: sa.Connection, name: str, role: str = USER) -> Principal:
    """Return the account of that name; make it, with this role, if there is none."""
    t = tables.user
    row = c.execute(sa.select(t.c.id, t.c.role).where(t.c.name == name)).mappings().one_or_none()
    if row is None:
        row_id = new_id()
        sql.insert(c, t, [{
            "id": row_id, "name": name, "role": role, "max_instances": None, "max_cpu": None, "max_memory_mib": None,
            "created_at": now(),
        }])  # fmt: skip
        return Principal(row_id, name, role)
    return Principal(row["id"], name, row["role"])


def find(c: sa.Connection, name: str) -> Principal:
    """Return the account of that name. Raise NotFound."""
    t = tables.user
    row = c.execute(sa.select(t.c.id, t.c.role).where(t.c.name == name)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no account {name}", f"account/{name}")
    return Principal(row["id"], name, row["role"])


def ensure_admin(c: sa.Connection) -> str | None:
    """Make the account admin and its first token; return the token's text, None when it has one already."""
    admin = named(c, "admin", ADMIN)
    t = tables.token
    has = c.execute(sa.select(t.c.id).where(t.c.user_id == admin.id).limit(1)).first()
    return None if has else new_token(c, admin, "first")


def new_token(c: sa.Connection, principal: Principal, label: str, expires_at: datetime | None = None) -> str:
    """Make a token and return its text, which is nowhere kept."""
    text = "rf_" + secrets.token_urlsafe(32)
    sql.insert(c, tables.token, [{
        "id": new_id(), "user_id": principal.id, "sha256": _digest(text), "label": label[:255], "created_at": now(),
        "expires_at": expires_at,
    }])  # fmt: skip
    return text


def authenticate(c: sa.Connection, token: str) -> Principal:
    """Return who holds this token. Raise Denied when it is unknown or has expired."""
    row = c.execute(_HOLDER, {"sha256": _digest(token)}).mappings().one_or_none()
    if row is None:
        raise Denied("the token is not known here", fix="see RACKFLOW_TOKEN_FILE, or make a new token")
    if row["expires_at"] is not None and row["expires_at"] < now():
        raise Denied("the token has expired", evidence={"expires_at": row["expires_at"].isoformat()})
    return Principal(row["id"], row["name"], row["role"])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
