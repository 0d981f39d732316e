# make_rootfs TREE FILE: a root image of the type $rootfsType that depends on nothing but the tree's content: fixed times
# and UUID, everything owned by root. run_tool runs the programs.

# Nothing looks at the UUID: the hypervisor says which disk is the root.
ROOTFS_UUID=6d766d63-746c-4000-8000-000000000000

make_rootfs() {
  find "$1" -exec touch -h -d @1 {} +
  case $rootfsType in
    # Not compressed: reading is what a booting, emulated CPU does most.
    erofs) run_tool mkfs.erofs -T 1 -U "$ROOTFS_UUID" --all-root "$2" "$1" ;;
    squashfs) run_tool mksquashfs "$1" "$2" -all-root -mkfs-time 1 -all-time 1 -noI -noD -noF -noX -no-progress -quiet ;;
    ext4) make_ext4 "$1" "$2" ;;
  esac > /dev/null
}

# make_ext4 TREE FILE: mke2fs takes owners and times of change from the tree; debugfs puts them right.
make_ext4() {
  local kibibytes files field
  kibibytes=$(du -sk "$1" | cut -f 1)
  files=$(find "$1" | wc -l)
  export E2FSPROGS_FAKE_TIME=1
  # The content, 256 bytes an inode, and what groups and directories take besides. It is never written to.
  run_tool mke2fs -q -F -t ext4 -b 4096 -I 256 -N $((files + 64)) -m 0 -O ^has_journal,^resize_inode -U "$ROOTFS_UUID" \
    -E "hash_seed=$ROOTFS_UUID,lazy_itable_init=0" -d "$1" "$2" "$(((kibibytes + files) * 105 / 100 + 4096))k"
  (cd "$1" && find .) | while read -r path; do
    for field in 'uid 0' 'gid 0' 'atime @1' 'ctime @1'; do echo "set_inode_field \"/$path\" $field"; done
  done > "$TMPDIR/corrections"
  run_tool debugfs -w -f "$TMPDIR/corrections" "$2" 2> "$TMPDIR/debugfs"
  # It exits with 0 even where a command failed.
  if grep -v '^debugfs ' "$TMPDIR/debugfs" >&2; then return 1; fi
}
