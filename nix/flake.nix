{
  description = "mvmctl's guest library: bootable microVM images from nixpkgs or from Debian packages";

  # No inputs on purpose: nixpkgs comes from the template's own flake, and a template that uses hostPkgs needs no
  # network to be evaluated.
  outputs = { self }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forEachSystem = make: builtins.listToAttrs (map (system: { name = system; value = make system; }) systems);
    in
    {
      lib.mkGuest = import ./mk-guest.nix;
      hostPkgs = forEachSystem (system: import ./debian/host-pkgs.nix { inherit system; });
    };
}
