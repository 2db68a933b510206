"""One stage each: where record meets world. Tasks join the ledger (control), the hosts (drivers) and the history."""
