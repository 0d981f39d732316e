# A package set for machines that reach no Nix cache: images are put together from Debian packages.
{ system }:
let
  architectures = { x86_64-linux = "amd64"; aarch64-linux = "arm64"; };
in
{
  isMvmHostPkgs = true;
  inherit system;
  # As dpkg calls it.
  architecture = architectures.${system};
  writeText = builtins.toFile;
}
