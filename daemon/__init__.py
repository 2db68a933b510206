"""The processes of a front-end: settings, supervisor, worker with dispatcher, and what they run."""
