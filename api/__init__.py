"""The front-end's REST API: it writes to the ledger, wakes the dispatcher, and shows the record."""
