# An image from Debian packages, in four derivations, so that a change costs only what depends on it: the kernel with
# its modules; the initrd; the packages, unpacked; the root image with the services' configuration. All but the last are
# shared by all images that ask for the same.
{ pkgs, name, packages, rootfsType, accounts, guestConfig, imageConfig, files, kernelModules, keepDocs, debianLock
, excludePackages
}:
let
  modules = import ../modules.nix { inherit rootfsType kernelModules; };
  request = import ./request.nix { inherit pkgs name packages rootfsType excludePackages; };
  locked = import ./lock.nix { inherit name debianLock request; };

  # `busybox sh` is the only program a build starts with.
  build = stepName: script: settings: derivation ({
    name = stepName;
    inherit (pkgs) system;
    builder = "${locked.busybox}/busybox";
    args = [ "sh" "${script}" ];
    prelude = "${./prelude.sh}";
    inherit (locked) busybox;
  } // settings);

  kernel = build "mvm-kernel" ./kernel.sh {
    makeKernel = "${../image/kernel.sh}";
    inherit (locked) kernel tools;
    modules = modules.all;
  };

  initrd = build "mvm-initrd" ../image/initrd.sh {
    makeKernel = "${../image/kernel.sh}";
    inherit kernel;
    modules = modules.loaded;
    agent = import ../agent.nix { inherit (pkgs) system; };
  };

  unpackedPackages = build "mvm-packages" ./packages.sh {
    packages = locked.packages ++ [ locked.busyboxDeb ];
    inherit keepDocs;
  };

  checkedGuestConfig =
    if !(builtins.hasContext guestConfig) then guestConfig
    else throw "mkGuest ${name}: a service, health check or hook names a path of the Nix store, which a guest of Debian packages does not have: put the file into the image with files.\"/path\" = ./file;";

  image = build "${name}-image" ./image.sh {
    inherit kernel initrd unpackedPackages rootfsType;
    inherit (locked) tools;
    assemble = "${../image/assemble.sh}";
    makeRootfs = "${../image/make-rootfs.sh}";
    inherit (accounts) passwd group shadow;
    guestConfig = checkedGuestConfig;
    imageConfig = builtins.toJSON imageConfig;
    hostname = imageConfig.hostname;
    installFiles = files;
    passAsFile = [ "passwd" "group" "shadow" "guestConfig" "imageConfig" "installFiles" ];
  };
in
# What debian.lock has to pin, for mvmctl to ask before there is a lock.
image // { debianRequest = request; }
