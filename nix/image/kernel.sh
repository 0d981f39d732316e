# Functions that take a kernel apart. make_kernel IMAGE MODULE-DIRECTORY makes of them: $out/vmlinux, uncompressed;
# $out/modules/*.ko, those of $modules with what they need; $out/modules.dep. run_tool runs lz4 and zstd.

# The boot protocol's setup header (Linux, Documentation/arch/x86/boot.rst).
SETUP_SECTS_OFFSET=497 # 0x1f1, one byte: 512-byte sectors of real-mode code after the boot sector
MAGIC_OFFSET=514       # 0x202, "HdrS"
PAYLOAD_OFFSET=584     # 0x248, 4 bytes: where the payload begins, counted from the protected-mode code
PAYLOAD_LENGTH=588     # 0x24c, 4 bytes

# number FILE OFFSET BYTES: an unsigned little-endian number.
number() { od -An -v -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' \n'; }

bytes_hex() { od -An -v -t x1 -j "$2" -N "$3" "$1" | tr -d ' \n'; }

# slice FILE OFFSET LENGTH
slice() { dd if="$1" bs=1M iflag=skip_bytes,count_bytes,fullblock skip="$2" count="$3" 2> /dev/null; }

# decompress FILE [TRAILER]: without the file's last TRAILER bytes.
decompress() {
  local length
  length=$(($(stat -c %s "$1") - ${2:-0}))
  case $(bytes_hex "$1" 0 6) in
    1f8b*) gunzip -c "$1" ;;
    fd377a585a00) slice "$1" 0 "$length" | unxz -c ;;
    02214c18* | 04224d18*) slice "$1" 0 "$length" | run_tool lz4 -dc ;;
    28b52ffd*) slice "$1" 0 "$length" | run_tool zstd -dc ;;
    *) echo "$1 is compressed in an unknown way: $(bytes_hex "$1" 0 6)" >&2; return 1 ;;
  esac
}

# uncompressed_kernel FILE: the ELF file in a bzImage; any other file (arm64's Image) as it is or out of gzip. An emulated
# CPU takes 0.3 to 1 s for what the builder does here.
uncompressed_kernel() {
  local start
  if [ "$(bytes_hex "$1" $MAGIC_OFFSET 4)" = 48647253 ]; then
    start=$((($(number "$1" $SETUP_SECTS_OFFSET 1) + 1) * 512 + $(number "$1" $PAYLOAD_OFFSET 4)))
    slice "$1" "$start" "$(number "$1" $PAYLOAD_LENGTH 4)" > "$TMPDIR/payload"
    # All but gzip are followed by 4 bytes with the size (Linux, scripts/Makefile.lib: size_append).
    decompress "$TMPDIR/payload" 4
  elif [ "$(bytes_hex "$1" 0 2)" = 1f8b ]; then
    gunzip -c "$1"
  else
    cat "$1"
  fi
}

# module_file PATH: as file names in $out/modules are, whatever compression the kernel has its modules in.
module_file() {
  local file=${1##*/}
  echo "${file%.ko*}.ko"
}

# keep_module PATH: keeps a module of the working directory's tree and all it needs.
keep_module() {
  local dependency file
  file=$(module_file "$1")
  [ ! -e "$out/modules/$file" ] || return 0
  for dependency in $(sed -n "s|^$1: *||p" modules.dep); do keep_module "$dependency"; done
  case $1 in
    *.ko) cp "$1" "$out/modules/$file" ;;
    *) decompress "$1" > "$out/modules/$file" ;;
  esac
}

# find_module NAME: its path in modules.dep, or nothing if the kernel has it built in or not at all. File names have '-'
# or '_' where the module's name has '_'.
find_module() {
  cut -d : -f 1 modules.dep | grep -E "(^|/)$(echo "$1" | sed 's/[-_]/[-_]/g')\.ko(\.[a-z]+)?$" || true
}

make_kernel() {
  local module path
  mkdir "$out" "$out/modules"
  uncompressed_kernel "$1" > "$out/vmlinux"
  cd "$2"
  for module in $modules; do
    path=$(find_module "$module")
    [ -z "$path" ] || keep_module "$path"
  done
  # What each kept module needs, by file name.
  for path in $(cut -d : -f 1 modules.dep | sort); do
    [ -e "$out/modules/$(module_file "$path")" ] || continue
    echo "$(module_file "$path"):$(for path in $(sed -n "s|^$path:||p" modules.dep); do echo " $(module_file "$path")"; done | tr -d '\n')"
  done > "$out/modules.dep"
}
