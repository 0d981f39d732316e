# Reads one image's part of debian.lock and turns every locked file into a path of the Nix store.
{ name, debianLock, request }:
let
  howTo = "'mvmctl template build' writes it";
  fail = message: throw "mkGuest ${name}: ${message}";

  lock =
    if debianLock == null then fail "hostPkgs needs debianLock = ./debian.lock; (${howTo})"
    else if !(builtins.pathExists debianLock) then fail "${toString debianLock} is missing: ${howTo}"
    else builtins.fromJSON (builtins.readFile debianLock);
  checkedLock = if lock.version == 1 then lock else fail "debian.lock has version ${toString lock.version}: update mvmctl";
  image = checkedLock.images.${request.image} or (fail "debian.lock has no image ${request.image}: ${howTo}");
  checkedImage =
    if image.request == request then image
    else fail "debian.lock is older than the flake's packages: ${howTo}";

  # mvmctl puts the files into the store before the build. Their hashes alone decide their paths, so Nix then has nothing
  # to do. Where a file is missing, Nix shows this URL in its error.
  urlOfMissing = path: "https://run-mvmctl-template-build-to-get.invalid/${path}";

  fixedOutput = settings: (derivation ({
    system = "builtin";
    builder = "builtin:fetchurl";
    outputHashAlgo = "sha256";
    preferLocalBuild = true;
  } // settings)).outPath;

  fetchDeb = file:
    let pinned = checkedLock.files.${file} or (fail "debian.lock does not say what ${file} is: remove the lock; ${howTo}");
    in
    fixedOutput {
      name = file;
      url = urlOfMissing file;
      outputHashMode = "flat";
      outputHash = pinned.sha256;
    };
in
{
  kernel = fetchDeb checkedImage.kernel;
  busyboxDeb = fetchDeb checkedImage.busybox.file;
  tools = map fetchDeb checkedImage.tools;
  packages = map fetchDeb checkedImage.packages;
  # A directory with the static busybox of that package: it builds everything, so no builder could unpack it.
  busybox = fixedOutput {
    name = "mvm-busybox";
    url = urlOfMissing "busybox";
    outputHashMode = "recursive";
    outputHash = checkedImage.busybox.directorySha256;
  };
}
