# Sourced by every build step of a Debian image. Gives a PATH of busybox's applets, and functions for .deb files.
set -eu -o pipefail
umask 022
mkdir "$TMPDIR/applets"
"$busybox/busybox" --install -s "$TMPDIR/applets"
export PATH="$TMPDIR/applets"

# unpack_deb FILE DIRECTORY: the files of a package. Its maintainer scripts are neither unpacked nor run.
unpack_deb() {
  case $(ar t "$1") in
    *data.tar.xz*) ar p "$1" data.tar.xz | tar -xJ -C "$2" ;;
    *data.tar.gz*) ar p "$1" data.tar.gz | tar -xz -C "$2" ;;
    *data.tar.zst*) ar p "$1" data.tar.zst | run_tool zstd -dc | tar -x -C "$2" ;;
    *) echo "$1 has no data.tar of a known compression" >&2; return 1 ;;
  esac
}

# merged_usr DIRECTORY: Debian's layout since 12, in which packages may still ship /bin, /sbin, /lib and /lib64.
merged_usr() {
  local directory
  for directory in bin sbin lib lib64; do
    mkdir -p "$1/usr/$directory"
    ln -s "usr/$directory" "$1/$directory"
  done
}

# unpack_tools: makes run_tool work. The tools are this build's own and never part of an image.
unpack_tools() {
  local deb
  toolRoot=$TMPDIR/tools
  mkdir "$toolRoot"
  merged_usr "$toolRoot"
  for deb in $tools; do unpack_deb "$deb" "$toolRoot"; done
  toolLoader=$(find "$toolRoot/usr/lib" -type f -name 'ld-linux-*.so.*')
  toolLibraries=$(find "$toolRoot/usr/lib" -maxdepth 1 -name '*-linux-gnu')
}

# run_tool PROGRAM [ARGUMENT]…: runs an unpacked program with its own C library, whatever the sandbox has.
run_tool() {
  local program=$1 directory
  shift
  for directory in usr/bin usr/sbin; do
    [ -e "$toolRoot/$directory/$program" ] || continue
    "$toolLoader" --library-path "$toolLibraries" "$toolRoot/$directory/$program" "$@"
    return
  done
  echo "the build tools have no $program" >&2
  return 1
}
