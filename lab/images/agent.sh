#!/bin/bash
# agent.sh OUT: make OUT/agent.vmlinuz and OUT/agent.zst, what Ironic boots a machine into to write its disk.
#
# Debian with ironic-python-agent (90 MB; a machine needs 3 GB of memory for it); it is told everything by its kernel's
# arguments, which are Ironic's. Takes some minutes and is made on first use only. What runs inside: images/agent/init.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
OUT=$(realpath "${1:?folder}")
WORK=$(mktemp -d -p "$OUT")
. "$HERE/common.sh"
TREE=$WORK/tree
. "$HERE/debian/tree.sh"
trap clean_up EXIT
AGENT=ironic-python-agent==13.0.0
# what the agent calls, and what brings up a network without systemd
TOOLS=python3,ca-certificates,iproute2,isc-dhcp-client,netbase,udev,kmod,fdisk,gdisk,parted,e2fsprogs,dosfstools,dmidecode
TOOLS=$TOOLS,lshw,pciutils,ipmitool,hdparm,nvme-cli,qemu-utils,psmisc,mdadm,lsscsi,linux-image-cloud-amd64

debootstrap_tree "$TOOLS"
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install -q --disable-pip-version-check \
  --target "$TREE/usr/local/lib/python3.11/dist-packages" "$AGENT"
install -m 755 "$HERE/agent/init" "$TREE/init"
install -m 755 "$HERE/agent/poweroff" "$TREE/usr/sbin/poweroff"
cp "$TREE"/boot/vmlinuz-* "$WORK/agent.vmlinuz"
rm -rf "$TREE"/boot/* "$TREE"/var/cache/apt/archives/*.deb "$TREE"/usr/share/i18n
find "$TREE/usr/local/lib/python3.11" -name tests -type d -prune -exec rm -rf {} +
slim_tree
(cd "$TREE" && find . | cpio -o -H newc --quiet | zstd -q -T0 -10 > "$WORK/agent.zst")
publish "$WORK/agent.vmlinuz" agent.vmlinuz
publish "$WORK/agent.zst" agent.zst
