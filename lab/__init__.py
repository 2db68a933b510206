"""A small data centre on one Linux machine: hosts made of namespaces, each with its own sshd and libvirtd or LXD."""
