# Out of a kernel package: $out/vmlinux, uncompressed; $out/modules/*.ko with what they need; $out/modules.dep.
. "$prelude"

# The boot protocol's setup header (Linux, Documentation/arch/x86/boot.rst).
SETUP_SECTS_OFFSET=497   # 0x1f1, one byte: 512-byte sectors of real-mode code after the boot sector
MAGIC_OFFSET=514         # 0x202, "HdrS"
PAYLOAD_OFFSET=584       # 0x248, 4 bytes: where the payload begins, counted from the protected-mode code
PAYLOAD_LENGTH=588       # 0x24c, 4 bytes

# number FILE OFFSET BYTES: an unsigned little-endian number.
number() { od -An -v -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' \n'; }

bytes_hex() { od -An -v -t x1 -j "$2" -N "$3" "$1" | tr -d ' \n'; }

# slice FILE OFFSET LENGTH
slice() { dd if="$1" bs=1M iflag=skip_bytes,count_bytes,fullblock skip="$2" count="$3" 2>/dev/null; }

# decompress FILE: all but gzip are followed by 4 bytes with the size (Linux, scripts/Makefile.lib: size_append).
decompress() {
  local length
  length=$(($(stat -c %s "$1") - 4))
  case $(bytes_hex "$1" 0 6) in
    1f8b*) gunzip -c "$1" ;;
    fd377a585a00) slice "$1" 0 "$length" | unxz -c ;;
    02214c18*) slice "$1" 0 "$length" | run_tool lz4 -dc ;;
    28b52ffd*) slice "$1" 0 "$length" | run_tool zstd -dc ;;
    *) echo "the kernel is compressed in an unknown way: $(bytes_hex "$1" 0 6)" >&2; return 1 ;;
  esac
}

# uncompressed_kernel FILE: the kernel in a bzImage; any other file (arm64's Image) as it is or out of gzip.
uncompressed_kernel() {
  local start
  if [ "$(bytes_hex "$1" $MAGIC_OFFSET 4)" = 48647253 ]; then
    start=$((($(number "$1" $SETUP_SECTS_OFFSET 1) + 1) * 512 + $(number "$1" $PAYLOAD_OFFSET 4)))
    slice "$1" "$start" "$(number "$1" $PAYLOAD_LENGTH 4)" > "$TMPDIR/payload"
    decompress "$TMPDIR/payload"
  elif [ "$(bytes_hex "$1" 0 2)" = 1f8b ]; then
    gunzip -c "$1"
  else
    cat "$1"
  fi
}

# keep_module PATH-IN-THE-TREE: copies a module and all it needs.
keep_module() {
  local dependency
  [ ! -e "$out/modules/${1##*/}" ] || return 0
  for dependency in $(sed -n "s|^$1: *||p" modules.dep); do keep_module "$dependency"; done
  cp "$1" "$out/modules/"
}

unpack_tools
mkdir "$TMPDIR/kernel" "$out" "$out/modules"
merged_usr "$TMPDIR/kernel"
unpack_deb "$kernel" "$TMPDIR/kernel"
cd "$TMPDIR/kernel"

uncompressed_kernel boot/vmlinuz-* > "$out/vmlinux"

release=$(ls usr/lib/modules)
depmod -b "$TMPDIR/kernel" "$release"
cd "usr/lib/modules/$release"
for module in $modules; do
  # File names have '-' or '_' where the module's name has '_'.
  path=$(cut -d : -f 1 modules.dep | grep -E "/$(echo "$module" | sed 's/[-_]/[-_]/g')\.ko$" || true)
  [ -z "$path" ] || keep_module "$path"
done

# Every kept module's own needs, by file name.
for path in $(cut -d : -f 1 modules.dep | sort); do
  [ -e "$out/modules/${path##*/}" ] || continue
  echo "${path##*/}:$(sed -n "s|^$path:||p" modules.dep | sed 's|[^ ]*/||g')"
done > "$out/modules.dep"
exit 0
