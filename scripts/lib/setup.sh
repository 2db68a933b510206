# Brings this machine to where rackflow runs: Debian packages, .venv, guest images. Sourced by every script, made to be
# run again: what is there is left alone. Only functions; call setup_all, or the parts.

SETUP_REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SETUP_VENV=$SETUP_REPO/.venv
SETUP_BAREMETAL=$SETUP_REPO/.venv-baremetal

# What .venv is made with; libvirt-python is built against this machine's libvirt.
SETUP_BUILD_PACKAGES=(ca-certificates python3-venv python3-dev gcc libc6-dev pkg-config libvirt-dev)
# What rackflow, its lab and its guest images need. Recommended packages are left out (no desktop, no mail server).
SETUP_PACKAGES=(
  curl iputils-ping procps sudo openssh-client openssh-server
  iproute2 iptables dnsmasq-base e2fsprogs fdisk util-linux
  libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils
  lxd lxd-client lxcfs
  busybox-static cpio extlinux syslinux-common debootstrap zstd lz4
  postgresql
)
# the third state database; the browser that fills Prefect's form; what shows the order of writes; what speaks IPMI;
# what tries hardware; what lets an emulated server boot from the network
SETUP_TEST_PACKAGES=(mariadb-server chromium strace ipmitool memtester fio smartmontools ethtool stress-ng ipxe-qemu)

setup_all() { # for the demo: this machine is looked at before anything is installed
  _setup_machine || return
  _setup_both "" "${SETUP_PACKAGES[@]}" || return
  setup_images
}

setup_bench() {
  _setup_machine || return
  _setup_both dev "${SETUP_PACKAGES[@]}" || return
  setup_images
}

setup_tests() { # without root all must be installed already; what needs root is then skipped, by name
  _setup_both dev "${SETUP_PACKAGES[@]}" "${SETUP_TEST_PACKAGES[@]}" || return
  setup_vcsim
  setup_baremetal || return
  if [ "$(id -u)" = 0 ]; then setup_images; fi
}

setup_check() {
  setup_packages "${SETUP_BUILD_PACKAGES[@]}" && setup_venv dev
}

setup_packages() { # PACKAGE...
  _setup_alone _setup_packages "$@"
}

setup_venv() { # [dev]: with what tests and checks need
  _setup_alone _setup_venv "$@"
}

setup_baremetal() { # Ironic, Inspector, and emulated BMCs, apart from .venv: they ask for other versions (290 MB)
  _setup_alone _setup_baremetal
}

setup_images() { # the tiny ones; a full Debian is built on its first use
  (cd "$SETUP_REPO" && "$SETUP_VENV/bin/python" -m lab images tiny > /dev/null)
}

setup_vcsim() { # govmomi's simulator, for tests of the VMware drivers; without Go they are skipped, by name
  local binary=$SETUP_VENV/bin/vcsim stamp=$SETUP_VENV/.vcsim-stamp want
  want=$(cat "$SETUP_REPO"/lab/vcsim/{*.go,go.mod,go.sum,*.sed} | sha256sum | cut -d' ' -f1)
  if [ -x "$binary" ] && [ "$(cat "$stamp" 2> /dev/null)" = "$want" ]; then return 0; fi
  if ! command -v go > /dev/null; then
    _setup_say "no Go here: tests of the VMware drivers are skipped (install Go 1.23 or newer)"
    return 0
  fi
  _setup_say "building vcsim"
  if _setup_vcsim "$binary" > /dev/null; then
    echo "$want" > "$stamp"
  else
    _setup_say "vcsim could not be built: tests of the VMware drivers are skipped"
  fi
}

_setup_vcsim() ( # BINARY: in a copy, as the simulator's own source is changed a little (lab/vcsim/collector.sed)
  local copy collector=vendor/github.com/vmware/govmomi/simulator/property_collector.go
  copy=$(mktemp -d)
  trap 'rm -rf "$copy"' EXIT
  cp "$SETUP_REPO"/lab/vcsim/{*.go,go.mod,go.sum} "$copy" && cd "$copy" && go mod vendor \
    && sed -i -f "$SETUP_REPO/lab/vcsim/collector.sed" $collector && grep -q 'applied = true' $collector \
    && GOFLAGS='-buildvcs=false -trimpath' go build -o "$1" .
)

_setup_say() { printf '[setup] %s\n' "$*" >&2; }

_setup_fail() {
  _setup_say "error: $*"
  return 1
}

_setup_alone() { # FUNCTION ARGUMENT...: two scripts at once would spoil each other's packages or .venv
  (
    flock 9
    "$@" 9>&-
  ) 9> "${TMPDIR:-/tmp}/rackflow$1-$(id -u).lock"
}

_setup_both() { # EXTRA PACKAGE...: pip and apt wait for the network and the disk in turn: side by side
  local extra=$1 venv
  shift
  setup_packages "${SETUP_BUILD_PACKAGES[@]}" || return
  setup_venv $extra &
  venv=$!
  setup_packages "$@" || { kill "$venv" 2> /dev/null; wait "$venv"; return 1; }
  wait "$venv"
}

_setup_debian() {
  if grep -qsE '^ID(_LIKE)?=.*debian' /etc/os-release && command -v apt-get > /dev/null; then return 0; fi
  _setup_fail "this is not Debian, nor derived from it: install by hand ${SETUP_PACKAGES[*]}"
}

_setup_machine() {
  local python
  python=$(command -v /usr/bin/python3 || true)
  if [ -z "$python" ]; then # look again once it is there
    setup_packages python3 || return
    python=/usr/bin/python3
  fi
  (cd "$SETUP_REPO" && "$python" -m lab.preflight --without-packages) || _setup_fail "the demo's data centre cannot run here"
}

# ---- packages

_setup_packages() {
  local missing
  missing=$(_setup_missing "$@")
  if [ -z "$missing" ]; then return 0; fi
  _setup_debian || return
  if [ "$(id -u)" != 0 ]; then
    _setup_fail "not root, and packages are missing: sudo apt-get install --no-install-recommends" $missing
    return
  fi
  _setup_say "installing Debian packages (services are not started):" $missing
  ( # a subshell, so that its exit puts the policy back whatever happens
    _setup_forbid_services
    _setup_apt_install $missing
  )
}

_setup_missing() { # PACKAGE...: print those that are not installed
  local package
  for package in "$@"; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" != installed ]; then echo "$package"; fi
  done
}

_setup_forbid_services() { # Debian starts what it installs unless this file says no; one that exists is obeyed
  local policy=/usr/sbin/policy-rc.d mark='# made by rackflow while it installs packages'
  if [ -e "$policy" ] && ! grep -qF "$mark" "$policy"; then return 0; fi
  printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > "$policy"
  chmod 755 "$policy"
  trap "rm -f $policy" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

_setup_apt_install() { # PACKAGE...: with the lists there are; with new ones when that does not do
  local log
  log=$(mktemp)
  if _setup_apt install --no-install-recommends "$@" > "$log" 2>&1 ||
    { _setup_apt update && _setup_apt install --no-install-recommends "$@"; } > "$log" 2>&1; then
    rm -f "$log"
    return 0
  fi
  tail -n 15 "$log" >&2
  _setup_fail "apt-get could not install them (all it said: $log)"
}

_setup_apt() {
  DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -q -y -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" < /dev/null
}

# ---- .venv

_setup_venv() { # made again when the repository moved, brought up to date when what it is made from changed
  local python stamp=$SETUP_VENV/.rackflow-stamp want extra=${1:-}
  python=$(_setup_python) || return
  if grep -qs ' dev$' "$stamp"; then extra=dev; fi # never less than there was
  want="$(_setup_venv_sources) $extra"
  if [ "$(cat "$stamp" 2> /dev/null)" = "$want" ]; then return 0; fi
  if ! _setup_venv_is_ours; then
    if [ -L "$SETUP_VENV" ]; then _setup_fail "$SETUP_VENV is a link: what it points to is not ours to clear" || return; fi
    _setup_say "making .venv with $("$python" --version)"
    "$python" -m venv --clear "$SETUP_VENV" || _setup_fail "$python -m venv failed" || return
  fi
  _setup_say "installing Python packages into .venv"
  _setup_pip "${extra:+[$extra]}" || _setup_fail "pip could not install what pyproject.toml asks for" || return
  echo "$want" > "$stamp"
}

_setup_baremetal() { # a few hundred MB and a minute: only made where it is missing or its list changed
  local python stamp=$SETUP_BAREMETAL/.rackflow-stamp pins=$SETUP_REPO/lab/baremetal/constraints.txt want
  python=$(_setup_python) || return
  want="$SETUP_REPO $(sha256sum < "$pins" | cut -d' ' -f1)"
  if [ "$(cat "$stamp" 2> /dev/null)" = "$want" ]; then return 0; fi
  _setup_say "installing the services of bare metal into ${SETUP_BAREMETAL##*/}"
  "$python" -m venv --clear "$SETUP_BAREMETAL" || _setup_fail "$python -m venv failed" || return
  "$SETUP_BAREMETAL/bin/python" -m pip install -q --disable-pip-version-check -c "$pins" \
    ironic ironic-inspector sushy-tools libvirt-python pyghmi \
    2> >(grep -v DEPRECATION >&2) || _setup_fail "pip could not install Ironic" || return
  echo "$want" > "$stamp"
}

_setup_venv_sources() { # print a checksum of what decides what is in it
  (cd "$SETUP_REPO" && { echo "$SETUP_REPO" && cat pyproject.toml constraints.txt; }) | sha256sum | cut -d' ' -f1
}

_setup_pip() { # EXTRAS. libvirt-python comes as source of the old kind, of which pip warns.
  (
    cd "$SETUP_REPO" &&
      "$SETUP_VENV/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt -e ".$1" \
        2> >(grep -v DEPRECATION >&2)
  )
}

_setup_venv_is_ours() { # a venv knows its own path: one that was moved along with its folder is broken
  [ -x "$SETUP_VENV/bin/python" ] && "$SETUP_VENV/bin/python" -c '' 2> /dev/null &&
    grep -qsF "$SETUP_VENV" "$SETUP_VENV/bin/activate"
}

_setup_python() { # print the distribution's Python, 3.11 or newer
  local python
  for python in /usr/bin/python3 /usr/bin/python3.{11,12,13,14}; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      echo "$python"
      return 0
    fi
  done
  _setup_fail "no Python 3.11 or newer in /usr/bin: use Debian 12 or newer"
}
