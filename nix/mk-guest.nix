# Makes a bootable image from packages, services and health checks. docs/guest-images.md documents every argument.
#
# The result is a derivation whose output keeps the image contract: vmlinux, initrd, rootfs.<type>, guest.json.
{
  # A package set: nixpkgs, or this library's hostPkgs.<system>.
  pkgs
, # Names the image. Two images of one flake that differ in their Debian packages need two names.
  name
, # Derivations with nixpkgs, names of Debian packages with hostPkgs.
  packages ? [ ]
, hostname ? name
, # The group that may read /mnt/secrets. `app` and all `users` are in it.
  serviceGroup ? "services"
, users ? { }
, services ? { }
, healthChecks ? { }
, hooks ? { }
, # Files of the root image by their absolute path: a path, a text, or { source | text | link, mode }.
  files ? { }
, rootfsType ? "erofs"
, # Added to what the hypervisor needs. Sizes, network and role are given at the start of a VM, not here.
  kernelCommandLine ? ""
, # Kernel modules to load besides those the agent needs.
  kernelModules ? [ ]
, # Keep documentation, manual pages and translations.
  keepDocs ? false
, # hostPkgs only: the lock file beside flake.lock, usually ./debian.lock.
  debianLock ? null
, # hostPkgs only: packages of the dependency closure to leave out, with what only they need.
  excludePackages ? [ ]
}:
let
  text = import ./text.nix;
  rootfsTypes = [ "erofs" "squashfs" "ext4" ];

  checkedName =
    if builtins.match "[a-z0-9][a-z0-9._-]{0,62}" name != null then name
    else throw "mkGuest: the name '${name}' must be lower-case letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit";
  checkedRootfsType =
    if builtins.elem rootfsType rootfsTypes then rootfsType
    else throw "mkGuest ${name}: rootfsType '${rootfsType}' is not one of ${text.list rootfsTypes}";

  accounts = import ./accounts.nix { inherit name users serviceGroup; };
  guestConfig = import ./guest-config.nix { inherit name hostname serviceGroup accounts services healthChecks hooks; };
  installFiles = import ./files.nix { inherit name files; writeText = pkgs.writeText; };

  buildImage = if pkgs.isMvmHostPkgs or false then import ./debian/image.nix else import ./nixpkgs/image.nix;
in
# All mistakes are found at once, and not only when the part that has them is built.
builtins.deepSeq [ checkedName checkedRootfsType guestConfig installFiles ] (buildImage {
  inherit pkgs packages accounts guestConfig kernelModules keepDocs debianLock excludePackages;
  name = checkedName;
  rootfsType = checkedRootfsType;
  files = installFiles;
  imageConfig = {
    version = 1;
    name = checkedName;
    rootfsType = checkedRootfsType;
    inherit kernelCommandLine hostname;
    agent = true;
  };
})
