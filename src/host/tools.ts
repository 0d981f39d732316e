import { findProgram } from "../core/process.ts";

export interface Tool {
  readonly program: string;
  /** Debian's package of it. */
  readonly debian: string;
  /** Without it the main job can't be done. */
  readonly needed: boolean;
  /** Only its VMs use it. */
  readonly onlyFor?: "firecracker";
  /** What can't be done without it. */
  readonly without: string;
}

/** Every program that mvmctl starts on the host, but for Firecracker, which Debian does not have. */
export const TOOLS: readonly Tool[] = [
  { program: "nix", debian: "nix-bin", needed: true, without: "no template can be built" },
  { program: "qemu-system-x86_64", debian: "qemu-system-x86", needed: true, without: "no VM can be started" },
  { program: "cp", debian: "coreutils", needed: true, without: "files can't be copied" },
  { program: "mkfs.ext4", debian: "e2fsprogs", needed: false, without: "no data disks" },
  {
    program: "setpriv",
    debian: "util-linux",
    needed: false,
    without: "a killed command may leave a VM until the next one",
  },
  { program: "git", debian: "git", needed: false, without: "no flakes in Git repositories" },
  { program: "dpkg-deb", debian: "dpkg", needed: false, without: "no images of Debian's packages (hostPkgs)" },
  { program: "apt-get", debian: "apt", needed: false, without: "debian.lock can't be written or renewed" },
  {
    program: "slirp4netns",
    debian: "slirp4netns",
    needed: false,
    onlyFor: "firecracker",
    without: "no network for Firecracker's VMs",
  },
  {
    program: "ip",
    debian: "iproute2",
    needed: false,
    onlyFor: "firecracker",
    without: "no network for Firecracker's VMs",
  },
];

/** Debian keeps mkfs out of an ordinary user's PATH. */
function withSystemDirectories(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, PATH: `${env["PATH"] ?? ""}:/usr/sbin:/sbin` };
}

/** @param has whether there is, or will be, what some tools are only for */
export function missingTools(env: NodeJS.ProcessEnv, has: { readonly firecracker: boolean }): Tool[] {
  return toolsFor(has).filter((tool) => !findTool(tool, env));
}

export function toolsFor(has: { readonly firecracker: boolean }): Tool[] {
  return TOOLS.filter(({ onlyFor }) => onlyFor === undefined || has[onlyFor]);
}

function findTool({ program }: Tool, env: NodeJS.ProcessEnv): string | undefined {
  const wanted = program === "qemu-system-x86_64" ? env["MVM_QEMU_BIN"] || program : program;
  return findProgram(wanted, withSystemDirectories(env));
}
