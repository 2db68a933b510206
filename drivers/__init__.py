"""How one host, store or BMC is spoken to. No database, no Prefect: facts in, changes out."""
