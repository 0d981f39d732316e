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

mkdir "$out" "$TMPDIR/root"
cd "$TMPDIR/root"
merged_usr .
for deb in $packages; do unpack_deb "$deb" .; done
[ -n "$keepDocs" ] || remove_docs
find . -exec touch -h -d @1 {} +
find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0 --renumber-inodes --ignore-devno > "$out/root.cpio"
exit 0
