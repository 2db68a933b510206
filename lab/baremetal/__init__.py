"""Ironic, Inspector and a Redfish emulator as small processes on loopback, for tests and for trying things out."""
