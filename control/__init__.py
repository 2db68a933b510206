"""The state of record: SQL tables, the operations ledger, placement. It never touches a host."""
