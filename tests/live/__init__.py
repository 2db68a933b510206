"""Against real libvirt, LXD and sshd, in the lab."""
