# Debian packages unpacked over each other: $out/root.cpio. Kept as an archive because the Nix store itself would lose
# modes and empty the times.
. "$prelude"

# Without documentation, except for the licences, which must go along with what they license.
remove_docs() {
  local directory
  for directory in man info locale lintian bug doc-base linda gtk-doc help; do rm -rf "usr/share/$directory"; done
  [ ! -d usr/share/doc ] || find usr/share/doc ! -type d ! -name copyright -exec rm -f {} +
  [ ! -d usr/share/doc ] || find usr/share/doc -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# As the packages' maintainer scripts do: a root image is read-only, and compiling the standard library at each start takes
# an emulated CPU seconds. Hashes of the sources are in the files instead of times, and not checked.
compile_python() {
  local python loader libraries
  python=$(find usr/bin -name 'python3.[0-9]*' -type f)
  [ -n "$python" ] || return 0
  loader=$(find usr/lib -type f -name 'ld-linux-*.so.*')
  libraries=$(find usr/lib -maxdepth 1 -name '*-linux-gnu')
  # A few files of some packages are no valid Python on purpose.
  PYTHONHASHSEED=0 "$loader" --library-path "$libraries" "$python" -m compileall -q -o 0 \
    --invalidation-mode unchecked-hash -s "$PWD" -p / usr/lib/python3* > "$TMPDIR/compileall" 2>&1 || true
}

mkdir "$out" "$TMPDIR/root"
cd "$TMPDIR/root"
merged_usr .
for deb in $packages; do unpack_deb "$deb" .; done
[ -n "$keepDocs" ] || remove_docs
compile_python
find . -exec touch -h -d @1 {} +
find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0 --renumber-inodes --ignore-devno > "$out/root.cpio"
exit 0
