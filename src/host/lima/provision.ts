import type { LimaArchitecture } from "./template.ts";

/** A file from the network, with the digest that its publisher states. */
interface Download {
  readonly url: string;
  readonly sha256: string;
}

/** Node.js as nodejs.org publishes it: Debian 12 has 18. Digests from its SHASUMS256.txt. */
const NODE_VERSION = "24.11.1";
const NODE: Readonly<Record<LimaArchitecture, Download>> = {
  x86_64: {
    url: `https://nodejs.org/dist/v${NODE_VERSION}/node-v${NODE_VERSION}-linux-x64.tar.xz`,
    sha256: "60e3b0a8500819514aca603487c254298cd776de0698d3cd08f11dba5b8289a8",
  },
  aarch64: {
    url: `https://nodejs.org/dist/v${NODE_VERSION}/node-v${NODE_VERSION}-linux-arm64.tar.xz`,
    sha256: "6b0863fb9f627bf4a6c5948dce1de4398174a2e05dbe717503d828e211ca01f0",
  },
};

/** Only Apple's chips lend their virtualisation to VMs inside a VM: on others Firecracker could not run. */
const FIRECRACKER_VERSION = "1.16.1";
const FIRECRACKER: Readonly<Partial<Record<LimaArchitecture, Download>>> = {
  aarch64: {
    url: `https://github.com/firecracker-microvm/firecracker/releases/download/v${FIRECRACKER_VERSION}/firecracker-v${FIRECRACKER_VERSION}-aarch64.tgz`,
    sha256: "8d0e69f6d6f9a1724551f607f18504052c16c1828ee3d4d7b6e6c73380871e0e",
  },
};

/** What mvmctl calls, and what Node.js and Firecracker are fetched with. */
const PACKAGES = "ca-certificates curl xz-utils git e2fsprogs iproute2 slirp4netns nix-bin qemu-utils";
const QEMU_PACKAGES: Readonly<Record<LimaArchitecture, string>> = {
  x86_64: "qemu-system-x86",
  aarch64: "qemu-system-arm",
};

/**
 * The script that root runs in the VM at every start (bash). It does its work once for each layout, and a part that
 * failed is done again at the next start.
 */
export function provisionScript(arch: LimaArchitecture): string {
  const firecracker = FIRECRACKER[arch];
  return `#!/bin/bash
set -eu -o pipefail
# /dev/kvm for whoever is in this VM: it has one user.
echo 'KERNEL=="kvm", MODE="0666"' > /etc/udev/rules.d/65-mvmctl-kvm.rules
if [ -e /dev/kvm ]; then chmod 0666 /dev/kvm; fi
if [ "$(cat /etc/mvmctl-layout 2>/dev/null)" = "$PARAM_MvmLayout" ]; then exit 0; fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends ${PACKAGES} ${QEMU_PACKAGES[arch]}
# Nix without a daemon: its store belongs to the one user.
install -d -o "{{.User}}" /nix
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() {
  curl --proto =https --tlsv1.2 -fsSL --retry 5 -o "$work/download" "$1"
  echo "$2  $work/download" | sha256sum --check --quiet
}
fetch ${NODE[arch].url} ${NODE[arch].sha256}
rm -rf /opt/node && mkdir /opt/node
tar -xJf "$work/download" -C /opt/node --strip-components=1
${firecracker ? installFirecracker(firecracker, arch) : ""}cat > /usr/local/bin/mvmctl <<'EOF'
#!/bin/sh
exec /opt/node/bin/node /opt/mvmctl/bin/mvmctl.js "$@"
EOF
chmod 755 /usr/local/bin/mvmctl
echo "$PARAM_MvmLayout" > /etc/mvmctl-layout
`;
}

function installFirecracker({ url, sha256 }: Download, arch: LimaArchitecture): string {
  return `fetch ${url} ${sha256}
tar -xzf "$work/download" -C "$work"
for program in firecracker jailer; do
  install -m 755 "$work/release-v${FIRECRACKER_VERSION}-${arch}/$program-v${FIRECRACKER_VERSION}-${arch}" "/usr/local/bin/$program"
done
`;
}

/** The VM is ready when this succeeds; Lima asks again and again. */
export const READINESS_SCRIPT = `#!/bin/bash
mvmctl --version >/dev/null
`;
