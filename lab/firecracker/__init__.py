"""A stand-in for Firecracker where there is no KVM: the same command line and API, an emulated QEMU microvm behind."""
