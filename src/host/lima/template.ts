import { provisionScript, READINESS_SCRIPT } from "./provision.ts";

/** Counts up when what is in the VM, or how this side talks to it, changes: a VM of another layout is set up anew. */
export const LIMA_LAYOUT = 1;

/** Where the VM finds this very package, so that both sides are always of one version. */
export const PACKAGE_MOUNT = "/opt/mvmctl";

/** Sparse: only what is written takes room on the Mac. */
const DISK = "100GiB";

export type LimaArchitecture = "x86_64" | "aarch64";

/** What the VM is made of. */
export interface LimaMachine {
  readonly cpus: number;
  readonly memMiB: number;
  readonly arch: LimaArchitecture;
  /** `vz` is macOS's own hypervisor; `qemu` is what other hosts have. */
  readonly vmType: "vz" | "qemu";
  /** Whether VMs inside the VM get the chip's virtualisation; see `nestedVirtualization`. */
  readonly nested: boolean;
  /** Root of this package on the host. */
  readonly packageDirectory: string;
}

interface Image {
  readonly arch: LimaArchitecture;
  readonly debianArch: "amd64" | "arm64";
  readonly sha512: string;
}

/** Debian 12's cloud image of that day; digests as in Lima 2.2's own Debian template. */
const IMAGE_RELEASE = "20260712-2537";
const IMAGES: readonly Image[] = [
  {
    arch: "x86_64",
    debianArch: "amd64",
    sha512:
      "6c2607f1846ee86040830c87d0b723f0967da3e884ea4673d9db4aa8eee13a4b7c663524bfa42082c16fc6919f3aa1bf425c004d07ff06c53a319ad0c42647bb",
  },
  {
    arch: "aarch64",
    debianArch: "arm64",
    sha512:
      "52eb678130e85a9bf9f3cf4f7181e060fa60a5db45373717474c5ff9305645c5e6cab8b05ca042bcfa7921d2ca29cf9fd2e815f75abe2d168557ad7207af127b",
  },
];

/**
 * The VM as Lima's YAML. Strings are written as JSON, which YAML takes as it is. Debian keeps a dated image for some
 * months: after that Lima takes the newest one of Debian 12, whose digest nobody can know today.
 */
export function limaTemplate(machine: LimaMachine): string {
  const { cpus, memMiB, arch, vmType, nested, packageDirectory } = machine;
  return `# mvmctl's Linux VM, written by \`mvmctl setup\`, which also brings it up to date. Edits are lost then.
minimumLimaVersion: "1.0.0"
vmType: ${vmType}
arch: ${arch}
cpus: ${cpus}
memory: "${memMiB}MiB"
disk: "${DISK}"
nestedVirtualization: ${nested}
images:
${imagesOf(arch)}
# The home is where flakes and files are: the same paths on both sides.
mounts:
- location: "~"
  writable: true
- location: ${JSON.stringify(packageDirectory)}
  mountPoint: ${JSON.stringify(PACKAGE_MOUNT)}
  writable: false
# Debian's cloud kernel has no 9p.
mountTypesUnsupported: [9p]
mountType: ${vmType === "vz" ? "virtiofs" : "reverse-sshfs"}
# Published ports reach the host's loopback, and not its network.
portForwards:
- guestIP: "127.0.0.1"
  guestPortRange: [1, 65535]
  hostIP: "127.0.0.1"
  hostPortRange: [1, 65535]
containerd:
  system: false
  user: false
param:
  MvmLayout: "${LIMA_LAYOUT}"
provision:
- mode: system
  script: |
${indent(provisionScript(arch), 4)}
probes:
- mode: readiness
  description: "mvmctl answers"
  script: |
${indent(READINESS_SCRIPT, 4)}
  hint: "look at /var/log/cloud-init-output.log in the VM: limactl shell mvmctl -- sudo tail -n 50 /var/log/cloud-init-output.log"
`;
}

function imagesOf(arch: LimaArchitecture): string {
  return IMAGES.filter((image) => image.arch === arch)
    .map(({ debianArch, sha512 }) => {
      const base = "https://cloud.debian.org/images/cloud/bookworm";
      const name = `debian-12-genericcloud-${debianArch}`;
      return `- location: "${base}/${IMAGE_RELEASE}/${name}-${IMAGE_RELEASE}.qcow2"
  arch: ${arch}
  digest: "sha512:${sha512}"
- location: "${base}/latest/${name}.qcow2"
  arch: ${arch}`;
    })
    .join("\n");
}

function indent(text: string, spaces: number): string {
  return text.trimEnd().replace(/^(?=.)/gm, " ".repeat(spaces));
}

/**
 * Whether VMs inside the VM can have hardware virtualisation: Apple's M3 or newer, and macOS 15 or newer (Lima's
 * documentation of `nestedVirtualization`).
 * @param chip `sysctl -n machdep.cpu.brand_string`, such as "Apple M3 Pro"
 * @param macos `sw_vers -productVersion`, such as "15.1"
 */
export function nestedVirtualization(chip: string, macos: string): boolean {
  const generation = Number(/^Apple M(\d+)/.exec(chip)?.[1] ?? 0);
  return generation >= 3 && Number.parseInt(macos, 10) >= 15;
}
