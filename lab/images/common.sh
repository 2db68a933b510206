# What the image recipes share. Sourced; expects OUT (the cache) and WORK (a scratch folder in it) to be set.

MOUNTED=()

clean_up() {
  local folder
  for folder in "${MOUNTED[@]}"; do umount "$folder" 2> /dev/null || true; done
  rm -rf --one-file-system "$WORK"
}

fail() {
  echo "$*" >&2
  exit 1
}

static_busybox() { # print its path
  local path
  path=$(command -v busybox) || fail "busybox is missing: install busybox-static"
  if ldd "$path" > /dev/null 2>&1; then fail "busybox is not static: install busybox-static"; fi
  echo "$path"
}

fetch_packages() { # PACKAGE...: into OUT/debs, not installed. apt's lists may be missing or older than the mirror.
  local package
  mkdir -p "$OUT/debs"
  for package in "$@"; do
    if compgen -G "$OUT/debs/${package}_*.deb" > /dev/null; then continue; fi
    download "$package" || { apt-get -q update && download "$package"; }
  done
}

download() { (cd "$OUT/debs" && apt-get -q -o APT::Sandbox::User=root download "$1"); }

kernel_package() { # print the package that linux-image-cloud-amd64 stands for
  apt-cache depends linux-image-cloud-amd64 2> /dev/null | awk '/Depends: linux-image-/ {print $2; exit}'
}

unpack_packages() { # PACKAGE...: into WORK/tools; the cloud kernel into WORK/kernel. Sets KERNEL (its modules' version)
  local package
  package=$(kernel_package)
  if [ -z "$package" ]; then
    apt-get -q update
    package=$(kernel_package)
  fi
  [ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64"
  KERNEL=${package#linux-image-}
  fetch_packages "$package" "$@"
  dpkg-deb -x "$(ls "$OUT/debs/${package}"_*.deb | tail -n 1)" "$WORK/kernel"
  for package in "$@"; do dpkg-deb -x "$(ls "$OUT/debs/${package}"_*.deb | tail -n 1)" "$WORK/tools"; done
}

copy_with_libraries() { # PROGRAM, from the unpacked packages; libraries from there or from this machine
  local root=$1 program=$2 library listing
  cp "$WORK/tools/$program" "$root/usr/sbin/"
  listing=$(LD_LIBRARY_PATH=$WORK/tools/usr/lib/x86_64-linux-gnu ldd "$WORK/tools/$program")
  if grep 'not found' <<< "$listing"; then fail "install the packages of these libraries, for $program"; fi
  for library in $(awk '/=> \// {print $3} /^\t\/lib/ {print $1}' <<< "$listing"); do
    install -D "$library" "$root/$(sed "s,^$WORK/tools,,; s,^/usr,," <<< "$library")"
  done
}

make_boot_disk() { # RAW MIB LABEL TREE: one MBR partition from 1 MiB with a copy of TREE
  local raw=$1 mib=$2 label=$3 tree=$4
  truncate -s "${mib}M" "$raw"
  truncate -s "$((mib - 1))M" "$WORK/partition.raw"
  mkfs.ext4 -q -O ^64bit,^metadata_csum -L "$label" -d "$tree" "$WORK/partition.raw"
  dd if="$WORK/partition.raw" of="$raw" bs=1M seek=1 conv=notrunc,sparse status=none
  rm "$WORK/partition.raw"
  echo '2048,,L,*' | sfdisk -q "$raw"
}

mount_partition() { # RAW FOLDER
  mkdir -p "$2"
  mount -o loop,offset=1048576 "$1" "$2"
  MOUNTED+=("$2")
}

copy_without_holes() { # FROM TO: the boot loader reads no file with holes ("Loading failed: I/O error")
  cp --sparse=never "$1" "$2.new"
  sync -f "$2.new"
  mv "$2.new" "$2"
}

write_boot_loader() { # RAW MOUNTED KERNEL INITRD ARGUMENTS: extlinux, for BIOS; unmounts
  local raw=$1 folder=$2
  cat > "$folder/boot/extlinux.conf" << CONFIG
DEFAULT linux
PROMPT 0
TIMEOUT 1
LABEL linux
 KERNEL /boot/$3
 INITRD /boot/$4
 APPEND root=/dev/vda1 console=ttyS0 $5
CONFIG
  extlinux --install "$folder/boot"
  umount "$folder"
  MOUNTED=()
  dd if=/usr/lib/EXTLINUX/mbr.bin of="$raw" bs=440 count=1 conv=notrunc status=none
}

publish() { # FILE NAME: in place at once, so that a half-made image is never seen
  mv "$1" "$OUT/$2"
}
