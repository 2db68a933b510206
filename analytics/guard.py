"""What SQL from outside may be: one statement that only reads.

Several walls, each enough for most attacks: the statement's type, its syntax tree (this file), a read-only transaction,
no external access and a locked configuration (database.py), a deadline and bounded results (query.py), a bounded
process (owner.py). `WITH x AS (INSERT …) SELECT …` counts as a SELECT in DuckDB 2.0; only the tree and the read-only
transaction stop it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from core.errors import Invalid

FIX = "send one SELECT, for example: SELECT * FROM capacity_now"

TABLE_FUNCTIONS = frozenset({
    "unnest", "range", "generate_series", "json_each", "json_tree", "repeat_row", "duckdb_columns", "duckdb_tables",
    "duckdb_views", "duckdb_functions", "pragma_table_info", "summary", "icu_calendar_names", "pg_timezone_names",
})  # fmt: skip

# Scalar functions that make gigabytes or hours out of small arguments, where neither memory_limit nor an interrupt
# reaches them (measured with 2.0.0: repeat('x', 2e9) and range(4e8) held 4 and 15 GB, up to 57 s past the interrupt).
_GREEDY = frozenset({
    "repeat", "lpad", "rpad", "range", "generate_series", "list_resize", "array_resize", "levenshtein", "editdist3",
    "damerau_levenshtein", "jaro_similarity", "jaro_winkler_similarity", "bar", "write_log", "nextval",
})  # fmt: skip


_WRITES = frozenset({"INSERT_QUERY_NODE", "UPDATE_QUERY_NODE", "DELETE_QUERY_NODE", "MERGE_QUERY_NODE"})


def check(cursor: Any, sql: str) -> str:
    """Return the one statement's text. Raise Invalid for anything but a single SELECT that only reads."""
    try:
        statements = cursor.extract_statements(sql)
    except duckdb.Error as error:
        raise Invalid(f"not SQL: {error}", "query", fix=FIX) from error
    if len(statements) != 1:
        raise Invalid(f"one statement is allowed, {len(statements)} were sent", "query", fix=FIX)
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise Invalid(f"only SELECT is allowed, not {kind.name}", "query", fix=FIX)
    text = str(statements[0].query)
    reason = next(_objections(_tree(cursor, text)), None)
    if reason:
        raise Invalid(reason, "query", fix=FIX)
    return text


def _tree(cursor: Any, sql: str) -> Any:
    cursor.execute("SELECT json_serialize_sql(?)", [sql])
    tree = json.loads(cursor.fetchall()[0][0])
    if tree.get("error"):
        raise Invalid(f"not a plain SELECT: {tree.get('error_message')}", "query", fix=FIX)
    return tree["statements"]


def _objections(root: Any) -> Iterator[str]:
    """Yield what is wrong with the nodes of a syntax tree; without recursion, since trees can be deep."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            children = dict(node)
            if node.get("type") == "TABLE_FUNCTION":
                function = children.pop("function")
                waiting.append(function.get("arguments", function.get("children", [])))
                if function["function_name"].lower() not in TABLE_FUNCTIONS:
                    yield f"the table function {function['function_name']} is not allowed"
            if node.get("class") == "FUNCTION" and node["function_name"].lower() in _GREEDY:
                yield f"the function {node['function_name']} is not allowed"
            if node.get("type") in _WRITES:
                yield "only reading is allowed"
            waiting.extend(children.values())
