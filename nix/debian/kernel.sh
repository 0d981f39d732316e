# The kernel of a Debian package.
. "$prelude"
. "$makeKernel"

unpack_tools
mkdir "$TMPDIR/kernel"
merged_usr "$TMPDIR/kernel"
unpack_deb "$kernel" "$TMPDIR/kernel"

# Debian makes modules.dep when it installs the package.
release=$(ls "$TMPDIR/kernel/usr/lib/modules")
depmod -b "$TMPDIR/kernel" "$release"

make_kernel "$TMPDIR/kernel/boot/vmlinuz-$release" "$TMPDIR/kernel/usr/lib/modules/$release"
exit 0
