# The whole image of nixpkgs packages: $out keeps the image contract.
. "$prelude"
. "$assemble"
. "$makeRootfs"

mkdir "$out" "$TMPDIR/root"
cd "$TMPDIR/root"

mkdir -p nix/store usr
while read -r path; do cp -a "$path" nix/store/; done < "$closure/store-paths"
for directory in bin sbin usr/bin usr/sbin; do ln -s "$environment/bin" "$directory"; done

add_skeleton
. "$installFiles"
make_rootfs "$TMPDIR/root" "$out/rootfs.$rootfsType"

cp "$kernel/vmlinux" "$initrd/initrd" "$out/"
cp "$imageConfigPath" "$out/guest.json"
exit 0
