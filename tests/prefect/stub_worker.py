"""Process: the real worker with flows of the tests instead of the product's."""

from __future__ import annotations

from daemon import dispatcher, worker
from daemon.flow_table import FlowEntry
from daemon.settings import load

ENTRIES = (FlowEntry("stage", "tests.prefect.stub_flows.stage"),)

if __name__ == "__main__":
    dispatcher.FORGOTTEN_AFTER_S = 2.0
    worker.run(load(), ENTRIES)
