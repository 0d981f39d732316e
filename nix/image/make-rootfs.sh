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
