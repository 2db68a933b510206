# Who a lab host is and who may enter. Written on its first boot only, later boots find it on the disk. Sourced by boot.sh.

write_identity() {
  echo "$HOST_NAME" > "$ROOT/etc/hostname"
  # Stable, and different on every host: libvirt takes its host uuid from it.
  echo "rackflow-lab-$HOST_NUMBER" | md5sum | cut -c1-32 > "$ROOT/etc/machine-id"
  cp "$LAB_DIR/hosts" "$ROOT/etc/hosts"
  : > "$ROOT/etc/resolv.conf"
}

give_keys() { # HOME OWNER: may enter with the lab's key, and from there every other host
  install -d -m 700 "$1/.ssh"
  install -m 600 "$LAB_DIR/id_ed25519.pub" "$1/.ssh/authorized_keys"
  install -m 600 "$LAB_DIR/id_ed25519" "$1/.ssh/id_ed25519"
  install -m 600 "$LAB_DIR/known_hosts" "$1/.ssh/known_hosts"
  chroot "$ROOT" chown -R "$2:$2" "${1#"$ROOT"}"
}

write_admin_user() { # root by key only; and "rack", who is not root but may sudo, as on a cloud's machines
  local etc=$ROOT/etc id=61843
  sed -i 's/^root:[^:]*:/root:*:/' "$etc/shadow"
  sed -i '/^rack:/d' "$etc/passwd" "$etc/shadow" "$etc/group"
  echo "rack:x:$id:$id:rackflow lab:/home/rack:/bin/bash" >> "$etc/passwd"
  echo "rack:*:19000:0:99999:7:::" >> "$etc/shadow"
  echo "rack:x:$id:" >> "$etc/group"
  mkdir -p "$etc/sudoers.d"
  echo 'rack ALL=(ALL) NOPASSWD: ALL' > "$etc/sudoers.d/rack"
  chmod 440 "$etc/sudoers.d/rack"
  mkdir -p "$ROOT/home/rack"
  give_keys "$ROOT/root" root
  give_keys "$ROOT/home/rack" rack
}

write_sshd() { # Debian's defaults (MaxSessions 10, MaxStartups 10:30:100); no PAM, which would look for a login manager
  local folder=$ROOT/etc/ssh/lab
  mkdir -p "$folder"
  install -m 600 "$HOST_DIR/hostkey" "$folder/hostkey"
  install -m 644 "$HOST_DIR/hostkey.pub" "$folder/hostkey.pub"
  cat > "$folder/sshd_config" << 'CONFIG'
HostKey /etc/ssh/lab/hostkey
PidFile /run/sshd.pid
PasswordAuthentication no
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
Subsystem sftp /usr/lib/openssh/sftp-server
CONFIG
}
