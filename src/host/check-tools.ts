import { findProgram, run } from "../core/process.ts";
import { type Check, failed, ok, warning } from "./check.ts";

/** Programs that mvmctl starts, beside Nix and the hypervisor; Debian has them in these packages. */
const TOOLS = [
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
] as const;

/** Debian keeps mkfs out of an ordinary user's PATH. */
export function withSystemDirectories(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, PATH: `${env["PATH"] ?? ""}:/usr/sbin:/sbin` };
}

export function checkTools(env: NodeJS.ProcessEnv): Check[] {
  const missing = TOOLS.filter(({ program }) => !findProgram(program, withSystemDirectories(env)));
  if (missing.length === 0) return [ok("tools", TOOLS.map(({ program }) => program).join(", "))];
  return missing.map(({ program, debian, needed, without }) =>
    (needed ? failed : warning)(program, `not found: ${without}`, `apt-get install ${debian}`),
  );
}

/**
 * Who is not root restores snapshots in a user namespace: their memory files are read-only, and QEMU opens them for
 * writing even where it maps them privately.
 */
export async function checkUserNamespaces(env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Check[]> {
  if (process.getuid?.() === 0) return [];
  const subject = "user namespaces";
  const result = await run("unshare", ["--user", "--map-root-user", "--", "true"], { env, signal, timeoutMs: 10_000 });
  if (result.exitCode === 0) return [ok(subject, "you may make them")];
  const why = result.stderr.trim().split("\n").at(-1) ?? "";
  return [failed(subject, `snapshots can't be restored: ${why}`, unlockCommand())];
}

/** Ubuntu forbids them through AppArmor, Debian did through a setting of its kernel. */
function unlockCommand(): string {
  return "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu) or kernel.unprivileged_userns_clone=1 (Debian)";
}
