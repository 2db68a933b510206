"""One suite per family of drivers; a driver joins by a subclass that gives the fixture `rig`."""
