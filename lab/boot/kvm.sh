# A lab host with libvirt and QEMU: Debian's defaults (QEMU as libvirt-qemu, dynamic ownership, unix sockets only) in a
# configuration of its own; this machine's libvirt does not show through. Sourced by boot.sh.

prepare_kvm() {
  local etc=$ROOT/etc/libvirt lib=$ROOT/var/lib/libvirt
  mkdir -p "$etc"/{qemu/networks/autostart,qemu/autostart,storage/autostart,nwfilter} "$ROOT/var/log/libvirt/qemu"
  install -d -m 700 "$etc/secrets"
  install -d -m 711 "$lib/boot" "$lib/images"
  chroot "$ROOT" install -d -m 750 -o libvirt-qemu -g libvirt-qemu /var/lib/libvirt/qemu /var/lib/libvirt/qemu/channel
  # Without polkit (there is no message bus) the group libvirt decides who may use the socket, as polkit's rule would.
  cat > "$etc/libvirtd.conf" << 'CONFIG'
host_uuid_source = "machine-id"
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
CONFIG
  # AppArmor's profiles belong to the kernel, which all hosts share: a host's must not be loaded into it.
  echo 'security_driver = "none"' > "$etc/qemu.conf"
}
