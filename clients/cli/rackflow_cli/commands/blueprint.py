"""rackflow apply, plan and delete: whole blueprints."""

from __future__ import annotations

import typer

from rackflow_cli.tree import group

app = group("Blueprints.")
