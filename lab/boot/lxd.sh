# A lab host with LXD, not initialised: to do that is rackflow's part when it enrolls the host. Sourced by boot.sh.

prepare_lxd() {
  mkdir -p "$ROOT/var/log/lxd"
  chroot "$ROOT" chown _lxd:lxd /var/lib/lxd 2> /dev/null || true # where the package made that user
}
