# The Debian packages that an image is made of, before anything is locked. mvmctl evaluates this to write debian.lock.
{ pkgs, name, packages, rootfsType, excludePackages }:
let
  text = import ../text.nix;
  inherit (pkgs) architecture;

  imageTools = { erofs = [ "erofs-utils" ]; squashfs = [ "squashfs-tools" ]; ext4 = [ "e2fsprogs" ]; };

  # Packages that only serve the maintainer scripts of others. Those scripts are never run here, so these and what only
  # they depend on (perl, for one) would be dead weight. Whoever names one in `packages` gets it.
  installTimePackages = [
    "adduser" "cdebconf" "debconf" "dpkg" "init-system-helpers" "install-info" "lsb-base" "man-db" "sensible-utils"
    "ssl-cert" "sysvinit-utils" "ucf" "update-inetd" "usr-is-merged" "usrmerge"
  ];

  # Debian policy, section 5.6.1.
  checkPackage = package:
    if builtins.isString package && builtins.match "[a-z0-9][a-z0-9+.-]+" package != null then package
    else throw "mkGuest ${name}: with hostPkgs, packages are names of Debian packages such as \"redis-server\"; this is none: ${
      if builtins.isString package then "\"${package}\"" else builtins.typeOf package}";
  sorted = builtins.sort builtins.lessThan;
  unique = list: builtins.attrNames (builtins.listToAttrs (map (item: { name = item; value = null; }) list));

  requested = unique (map checkPackage packages);
in
{
  # Under which the lock keeps this image.
  image = "${name}-${pkgs.system}";
  inherit architecture;
  kernel = "linux-image-cloud-${architecture}";
  busybox = "busybox-static";
  # What builds the image: the kernel's compressions and the root file system.
  tools = sorted ([ "lz4" "zstd" ] ++ imageTools.${rootfsType});
  packages = requested;
  excluded = builtins.filter (package: !(builtins.elem package requested))
    (unique (installTimePackages ++ map checkPackage excludePackages));
}
