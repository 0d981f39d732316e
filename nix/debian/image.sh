# The whole image of Debian packages: $out keeps the image contract.
. "$prelude"
. "$assemble"
. "$makeRootfs"

unpack_tools
mkdir "$out" "$TMPDIR/root"
cd "$TMPDIR/root"
cpio --quiet -idm < "$unpackedPackages/root.cpio"

# What maintainer scripts would have done and services rely on.
trust_certificates() {
  [ -d usr/share/ca-certificates ] || return 0
  mkdir -p etc/ssl/certs usr/lib/ssl
  find usr/share/ca-certificates -name '*.crt' | sort | xargs cat > etc/ssl/certs/ca-certificates.crt
  ln -sf /etc/ssl/certs/ca-certificates.crt usr/lib/ssl/cert.pem
}

trust_certificates
add_skeleton
link_applets usr/bin usr/sbin
. "$installFilesPath"
make_rootfs "$TMPDIR/root" "$out/rootfs.$rootfsType"

cp "$kernel/vmlinux" "$initrd/initrd" "$out/"
cp "$imageConfigPath" "$out/guest.json"
exit 0
