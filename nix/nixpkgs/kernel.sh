# The kernel of nixpkgs.
. "$prelude"
. "$makeKernel"

make_kernel "$kernelImage" "$(echo "$kernelModules"/lib/modules/*)"
exit 0
