"""Why an instance is where it is, or why nowhere: a decision record in words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rackflow_cli import words
from rackflow_cli.columns import Column
from rackflow_cli.output import draw
from rackflow_cli.session import paint

HOSTS = (
    Column("HOST", "host"),
    Column("VERDICT", "verdict", state=True),
    Column("SCORE", "score", lambda v: words.NOTHING if v is None else f"{v:.3f}", right=True),
    Column("ROOM FOR", "room", right=True),
    Column("WHY", "why"),
)
_SAID_ELSEWHERE = ("kind", "cpu", "memory_mib", "disk_mib")


def show_reasons(told: Mapping[str, Any]) -> None:
    """Print the decision in one line, what was asked for, every host with its verdict, and what would help."""
    record = told.get("record") or told
    chosen = told.get("host") or record.get("host") or None
    print(_headline(told, chosen))
    if asked := _asked(record.get("shape") or {}):
        print(f"asked for: {asked}")
    rows = [_row(entry, chosen) for entry in record.get("hosts", ())]
    if rows:
        print()
        draw(rows, HOSTS, wide=False)
    for constraint, names in (record.get("others") or {}).items():
        print(f"and {words.counted(len(names), 'host')} more: {constraint}")
    if change := record.get("change"):
        print(f"\n{paint('smallest change:', 'cyan', sys.stdout)} {change['text']}")
    elif record.get("summary") and chosen is None and not rows:
        print(record["summary"])


def _headline(told: Mapping[str, Any], chosen: str | None) -> str:
    name = told.get("instance") or told.get("name") or "it"
    when = f" (decided {words.age(told['created_at'])} ago)" if told.get("created_at") else ""
    if chosen:
        return f"{paint(name, 'bold', sys.stdout)} is placed on {paint(chosen, 'green', sys.stdout)}{when}"
    return f"{paint(name, 'bold', sys.stdout)} {paint('fits on no host', 'red', sys.stdout)}{when}"


def _asked(shape: Mapping[str, Any]) -> str:
    sizes = [
        str(shape["kind"]) if shape.get("kind") else "",
        f"{words.number(shape['cpu'])} cpu" if shape.get("cpu") else "",
        f"{words.mib(shape['memory_mib'])} memory" if shape.get("memory_mib") else "",
        f"{words.mib(shape['disk_mib'])} disk" if shape.get("disk_mib") else "",
    ]
    rest = [f"{k.replace('_', ' ')} {words.text(v)}" for k, v in shape.items() if k not in _SAID_ELSEWHERE]
    return ", ".join(part for part in [*sizes, *rest] if part)


def _row(entry: Mapping[str, Any], chosen: str | None) -> dict[str, Any]:
    if "constraint" in entry:
        why = f"{entry['constraint']}: {entry.get('reason', '')}".rstrip(": ")
        return {"host": entry["host"], "verdict": "no", "score": None, "room": None, "why": why}
    verdict = "chosen" if entry["host"] == chosen else "fits"
    return {
        "host": entry["host"], "verdict": verdict, "score": entry.get("score"), "room": entry.get("fits"),
        "why": _parts(entry.get("parts") or {}),
    }  # fmt: skip


def _parts(parts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:+.3f}" for name, value in parts.items() if value)


def one_line(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return why no host would do, briefly: "memory: needs … (h1, h2); kind: runs … (h3)"."""
    grouped: dict[str, list[str]] = {}
    for entry in entries:
        if "constraint" in entry:
            grouped.setdefault(f"{entry['constraint']}: {entry.get('reason', '')}", []).append(str(entry["host"]))
    return "; ".join(f"{why} ({', '.join(hosts)})" for why, hosts in grouped.items())
