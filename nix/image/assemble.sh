# Functions that complete a root tree. The working directory is the tree.

# write_new FILE: standard input, unless a package brought the file.
write_new() {
  if [ -e "$1" ]; then cat > /dev/null; else cat > "$1"; fi
}

# add_skeleton: accounts, the agent's configuration, mount points.
add_skeleton() {
  local directory
  for directory in proc sys dev run tmp root home etc/mvm mnt/config mnt/secrets mnt/data var/empty var/lib var/log var/cache var/tmp; do
    mkdir -p "$directory"
  done
  chmod 1777 tmp var/tmp
  chmod 700 root
  [ -e var/run ] || ln -s ../run var/run

  cp "$passwdPath" etc/passwd
  cp "$groupPath" etc/group
  cp "$shadowPath" etc/shadow
  chmod 640 etc/shadow
  cp "$guestConfigPath" etc/mvm/guest.json
  echo "$hostname" > etc/hostname
  # Empty: every VM gets its own (machine-id(5)).
  : > etc/machine-id
  printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n' "$hostname" > etc/hosts
  : > etc/resolv.conf
  printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n' | write_new etc/nsswitch.conf
  printf '/bin/sh\n/usr/bin/sh\n' | write_new etc/shells
  printf 'NAME="mvmctl guest"\nID=mvm\nPRETTY_NAME="mvmctl guest"\n' | write_new etc/os-release
}

# link_applets DIRECTORY…: in the first, a link to busybox for each of its commands that no package has in any of them.
link_applets() {
  local applet directory
  for applet in $(busybox --list); do
    for directory in "$@"; do
      # -e is false for a link whose target is named from the guest's own root.
      if [ -e "$directory/$applet" ] || [ -L "$directory/$applet" ]; then continue 2; fi
    done
    ln -s busybox "$1/$applet"
  done
}

# install_file PATH SOURCE MODE: a file or a whole directory; without a MODE readable by all, executable as the source.
install_file() {
  local target=".$1"
  mkdir -p "${target%/*}"
  if [ -d "$2" ]; then
    mkdir -p "$target"
    cp -R "$2/." "$target/"
  else
    rm -f "$target"
    cp "$2" "$target"
  fi
  chmod -R u+w,a+rX "$target"
  [ -z "$3" ] || chmod "$3" "$target"
}

# link_file PATH TARGET
link_file() {
  mkdir -p ".${1%/*}"
  ln -sfn "$2" ".$1"
}
