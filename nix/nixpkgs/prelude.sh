# Sourced by every build step of an image from nixpkgs. Gives a PATH of busybox's applets, and run_tool.
set -eu -o pipefail
umask 022
mkdir "$TMPDIR/applets"
"$busybox/bin/busybox" --install -s "$TMPDIR/applets"
export PATH="$TMPDIR/applets"

# run_tool PROGRAM [ARGUMENT]…
run_tool() {
  local program=$1 tool directory
  shift
  for tool in $tools; do
    for directory in bin sbin; do
      [ -x "$tool/$directory/$program" ] || continue
      "$tool/$directory/$program" "$@"
      return
    done
  done
  echo "the build tools have no $program" >&2
  return 1
}
