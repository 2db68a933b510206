"""alembic's environment: `Store.migrate` hands over a connection, whose transaction holds the whole migration."""

from __future__ import annotations

from alembic import context

from control.tables import metadata


def run() -> None:
    """Migrate on the connection that was handed over."""
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True,
        compare_type=True,
    )  # fmt: skip
    with context.begin_transaction():
        context.run_migrations()


run()
