# An image from nixpkgs: the same steps as debian/image.nix, with the closure of the packages as the root's content.
{ pkgs, name, packages, rootfsType, accounts, guestConfig, imageConfig, files, kernelModules, ... }:
let
  inherit (pkgs.stdenv.hostPlatform) system;
  modules = import ../modules.nix { inherit rootfsType kernelModules; };

  notDerivations = builtins.filter (package: !(pkgs.lib.isDerivation package)) packages;
  checkedPackages =
    if notDerivations == [ ] then packages
    else throw "mkGuest ${name}: with nixpkgs, packages are derivations such as pkgs.redis; for names of Debian packages, use pkgs = mvm.hostPkgs.${system}";

  rootfsTools = { erofs = pkgs.erofs-utils; squashfs = pkgs.squashfsTools; ext4 = pkgs.e2fsprogs; };

  build = stepName: script: settings: derivation ({
    name = stepName;
    inherit system;
    builder = "${pkgs.busybox}/bin/busybox";
    args = [ "sh" "${script}" ];
    prelude = "${./prelude.sh}";
    inherit (pkgs) busybox;
    tools = map pkgs.lib.getBin [ pkgs.lz4 pkgs.zstd rootfsTools.${rootfsType} ];
  } // settings);

  linux = pkgs.linuxPackages.kernel;
  kernel = build "mvm-kernel" ./kernel.sh {
    makeKernel = "${../image/kernel.sh}";
    # bzImage, Image. Newer kernels say so themselves.
    kernelImage = "${linux}/${linux.target or pkgs.stdenv.hostPlatform.linux-kernel.target}";
    # Newer kernels have them in an output of their own.
    kernelModules = "${linux.modules or linux}";
    modules = modules.all;
  };

  initrd = build "mvm-initrd" ../image/initrd.sh {
    makeKernel = "${../image/kernel.sh}";
    inherit kernel;
    modules = modules.loaded;
    agent = import ../agent.nix { inherit system; };
  };

  # What is on the PATH; busybox gives the commands that no package has.
  environment = pkgs.buildEnv {
    name = "${name}-environment";
    paths = checkedPackages ++ [ (pkgs.lib.lowPrio pkgs.busybox) ];
    pathsToLink = [ "/bin" "/share" "/etc" ];
    ignoreCollisions = true;
  };

  # Written to files so that what services, checks and files refer to is part of the closure.
  guestConfigFile = pkgs.writeText "guest.json" guestConfig;
  installFiles = pkgs.writeText "install-files" files;
in
build "${name}-image" ./image.sh {
  inherit kernel initrd environment installFiles rootfsType;
  closure = pkgs.closureInfo { rootPaths = [ environment guestConfigFile installFiles ]; };
  assemble = "${../image/assemble.sh}";
  makeRootfs = "${../image/make-rootfs.sh}";
  inherit (accounts) passwd group shadow;
  guestConfigPath = guestConfigFile;
  imageConfig = builtins.toJSON imageConfig;
  hostname = imageConfig.hostname;
  passAsFile = [ "passwd" "group" "shadow" "imageConfig" ];
}
