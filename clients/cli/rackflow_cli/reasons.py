"""Why an instance is where it is, or why nowhere: a decision record in words."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rackflow_cli import words
from rackflow_cli.columns import Column
from rackflow_cli.output import draw
from rackflow_cli.session import paint

HOSTS = (
    Column("HOST", "host"),
    Column("VERDICT", "verdict", state=True),
    Column("SCORE", "score", lambda v: words.NOTHING if v is None else f"{v:.3f}", right=True),  # the lowest is best
    Column("ROOM FOR", "room", right=True),
    Column("WHY", "why"),
)
_SAID_ELSEWHERE = ("kind", "cpu", "memory_mib", "disk_mib", "image", "image_mib", "disk_min_mib")


def show_reasons(name: str, told: Mapping[str, Any]) -> None:
    """Print the decision in one line, what was asked for, every host with its verdict, and what would help."""
    chosen = told["host"]
    nowhere = paint("fitted nowhere", "red", sys.stdout)
    where = f"was placed on {paint(chosen, 'green', sys.stdout)}" if chosen else nowhere
    print(f"{paint(name, 'bold', sys.stdout)} {where} {words.age(told['decided_at'])} ago")
    print(f"asked for: {_asked(told['shape'])}")
    for line in _by_policy(told):
        print(line)
    print()
    if told["hosts"]:
        draw([_row(entry, chosen) for entry in told["hosts"]], HOSTS, wide=False)
    else:
        print("there is no host")
    for constraint, count in (told.get("others") or {}).items():
        print(f"and {words.counted(count, 'host')} more: {constraint}")
    if change := told.get("change"):
        print(f"\n{paint('smallest change:', 'cyan', sys.stdout)} {change['text']}")


def _asked(shape: Mapping[str, Any]) -> str:
    sizes = [
        str(shape["kind"]) if shape.get("kind") else "",
        f"{words.number(shape['cpu'])} cpu" if shape.get("cpu") else "",
        f"{words.mib(shape['memory_mib'])} memory" if shape.get("memory_mib") else "",
        f"{words.mib(shape['disk_mib'])} disk" if shape.get("disk_mib") else "",
    ]
    rest = [f"{k.replace('_', ' ')} {words.text(v)}" for k, v in shape.items() if k not in _SAID_ELSEWHERE]
    return ", ".join(part for part in [*sizes, *rest] if part)


def _by_policy(told: Mapping[str, Any]) -> list[str]:
    """Return by which policies hosts and clusters were compared; nothing where no cluster names one."""
    across = told.get("across")
    said = [f"hosts are compared by {told['policy']}"] if told.get("policy") else []
    if across:
        best = ", ".join(f"{one['cluster']} {one['score']:.7g} ({one['host']})" for one in across["clusters"])
        said.append(f"clusters are compared by {across['policy']}: {best}")
    return said


def _row(entry: Mapping[str, Any], chosen: str | None) -> dict[str, Any]:
    if "constraint" in entry:
        why = f"{entry['constraint']}: {entry.get('reason', '')}".rstrip(": ")
        return {"host": entry["host"], "verdict": "no", "score": None, "room": None, "why": why}
    verdict = "chosen" if entry["host"] == chosen else "fits"
    return {
        "host": entry["host"], "verdict": verdict, "score": entry.get("score"), "room": entry.get("fits"),
        "why": ", ".join(filter(None, [_parts(entry.get("parts") or {}), entry.get("note")])),
    }  # fmt: skip


def _parts(parts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {round(value, 3):+.7g}" for name, value in parts.items() if value)
