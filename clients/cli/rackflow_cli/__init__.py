"""The command line: speaks HTTP to the front-end and imports no room of rackflow."""
