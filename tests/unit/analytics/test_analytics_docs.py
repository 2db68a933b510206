"""docs/analytics.md and the schema say the same, and its example queries run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analytics.database import Database, Limits, rows_of
from analytics.query import Queries

PAGE = (Path(__file__).parents[3] / "docs" / "analytics.md").read_text()
EXAMPLES = re.findall(r'^rackflow query "(.+)"$', PAGE, re.MULTILINE)


def described(heading: str) -> dict[str, tuple[str, list[str]]]:
    """Return name -> (what it holds, columns) of the table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| ([\w ]+) \|$", section, re.MULTILINE)
    return {name: (comment, columns.split()) for name, comment, columns in rows}


@pytest.mark.parametrize(("heading", "kind"), [("Views", "view"), ("Tables", "table")])
def test_page_lists_all(database: Database, heading: str, kind: str) -> None:
    with database.read() as cursor:
        found = rows_of(cursor, f"SELECT {kind}_name AS name, comment FROM duckdb_{kind}s() WHERE NOT internal")
        columns = rows_of(cursor, "SELECT table_name, column_name FROM duckdb_columns() ORDER BY column_index")
    there = {
        row["name"]: (row["comment"], [c["column_name"] for c in columns if c["table_name"] == row["name"]])
        for row in found
    }
    assert described(heading) == there


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("sql", EXAMPLES)
def test_examples_run(database: Database, sql: str) -> None:
    assert Queries(database, Limits(memory_mib=128)).run(sql)["columns"]
