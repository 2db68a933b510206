"""What a request means for the record, verb by verb: checks, rows of nouns, drafts of operations."""
