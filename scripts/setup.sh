#!/bin/bash
# Brings a Debian machine to where this repository builds, runs and tests: says what it will install, installs what is
# missing, and builds the guest agent. Silent and quick when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

# The oldest Rust the agent builds with; Debian 12 has a newer one as rustc-web, beside its old rustc.
MIN_CARGO_MINOR=85

fail() {
  echo "setup: $1" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    fail "this needs root, or sudo: $*"
  fi
}

has() {
  command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]
}

has_new_cargo() {
  local minor
  minor=$(cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p')
  [ -n "$minor" ] && [ "$minor" -ge "$MIN_CARGO_MINOR" ]
}

# Debian packages that are missing, one a line.
missing_packages() {
  has nix || echo nix-bin
  has qemu-system-x86_64 || echo qemu-system-x86
  has mkfs.ext4 || echo e2fsprogs
  has setpriv || echo util-linux
  has git || echo git
  # A VM's own network; socat is the guest in its tests.
  has slirp4netns || echo slirp4netns
  has ip || echo iproute2
  has socat || echo socat
  # The tests make a private certificate authority.
  has openssl || echo openssl
  # The tests look at what is synced before a power cut.
  has strace || echo strace
  # script(1), through which the tests use a terminal.
  has script || echo bsdutils
  # Without its certificates Nix and cargo reach no server.
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
  # dpkg-deb unpacks the busybox that images are built with.
  has dpkg-deb || echo dpkg
  has_new_cargo || printf '%s\n' cargo-web rustc-web
  if ! has cc; then printf '%s\n' gcc libc6-dev; fi
}

install_packages() {
  local packages
  mapfile -t packages < <(missing_packages)
  # The lists of packages are needed to build images from Debian's packages, too.
  if [ "${#packages[@]}" -eq 0 ] && [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -print -quit)" ]; then return; fi
  has apt-get || fail "this script knows Debian's apt-get only; install by hand: ${packages[*]}"
  if [ "${#packages[@]}" -gt 0 ]; then echo "setup: installing from Debian's packages: ${packages[*]}"; fi
  as_root apt-get update -qq
  if [ "${#packages[@]}" -gt 0 ]; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
  fi
}

# Who is not root builds in a /nix of their own, as Nix's single-user installation has it, or through a daemon.
make_nix() {
  if [ "$(id -u)" -eq 0 ] || [ -w /nix ] || [ -S /nix/var/nix/daemon-socket/socket ]; then return; fi
  if [ -e /nix ]; then fail "/nix is not yours, and no Nix daemon builds for you: \`npx mvmctl setup\` installs one, or do this as root"; fi
  echo "setup: making /nix, which Nix builds in, for $(id -un)"
  as_root install -d -m 755 -o "$(id -un)" /nix
}

build_agent() {
  local machine binary installed
  machine=$(uname -m)
  binary="agent/target/$machine-unknown-linux-gnu/release/mvm-agent"
  installed="nix/agent/$machine-linux/mvm-agent"
  if [ -x "$installed" ] && [ -z "$(find agent/src agent/Cargo.toml agent/Cargo.lock agent/.cargo -newer "$installed" -print -quit)" ]; then return; fi
  echo "setup: building the guest agent"
  (cd agent && cargo build --release --locked --quiet --target "$machine-unknown-linux-gnu")
  mkdir -p "$(dirname "$installed")"
  install -m 755 "$binary" "$installed"
}

install_packages
make_nix
build_agent
