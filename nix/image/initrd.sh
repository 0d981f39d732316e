# An initrd whose /init is the agent, with the modules it loads: $out/initrd, an uncompressed cpio archive. Unpacking a
# compressed one costs an emulated CPU more than reading the larger file.
. "$prelude"

mkdir "$out" "$TMPDIR/initrd" "$TMPDIR/initrd/modules"
cd "$TMPDIR/initrd"

# list_module FILE: lists what a module needs, then itself; each once.
list_module() {
  local dependency
  grep -q "^/modules/$1\$" modules.list && return
  for dependency in $(sed -n "s|^$1: *||p" "$kernel/modules.dep"); do list_module "$dependency"; done
  echo "/modules/$1" >> modules.list
  cp "$kernel/modules/$1" modules/
}

: > modules.list
for module in $modules; do
  # The kernel has the module built in, or not at all, if there is no such file.
  file=$(cut -d : -f 1 "$kernel/modules.dep" | grep -E "^$(echo "$module" | sed 's/[-_]/[-_]/g')\.ko$" || true)
  [ -z "$file" ] || list_module "$file"
done

cp "$agent" init
chmod 755 init
find . -exec touch -h -d @1 {} +
find . | sort | cpio -o -H newc -R 0:0 --renumber-inodes --ignore-devno > "$out/initrd"
exit 0
