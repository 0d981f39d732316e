import { MvmError } from "../core/errors.ts";
import type { Paths } from "../core/paths.ts";
import { run } from "../core/process.ts";
import { findFirecracker } from "../hypervisor/firecracker-binary.ts";
import { type Check, failed, ok, warning } from "./check.ts";
import { requireNetworkTools } from "./network.ts";
import { missingTools, toolsFor } from "./tools.ts";

/** Nix and QEMU have checks of their own, which say more. */
const CHECKED_ELSEWHERE = new Set(["nix", "qemu-system-x86_64"]);

export function checkTools(paths: Paths, env: NodeJS.ProcessEnv): Check[] {
  const ours = ({ program }: { program: string }) => !CHECKED_ELSEWHERE.has(program);
  const has = { firecracker: findFirecracker(paths, env) !== undefined };
  const missing = missingTools(env, has).filter(ours);
  if (missing.length === 0) {
    const names = toolsFor(has)
      .filter(ours)
      .map(({ program }) => program);
    return [ok("tools", names.join(", "))];
  }
  return missing.map(({ program, needed, without }) =>
    (needed ? failed : warning)(program, `not found: ${without}`, "mvmctl setup"),
  );
}

/** Whether VMs can have networks of their own. Nobody needs it who does not ask for it. */
export function checkIsolation(env: NodeJS.ProcessEnv): Check[] {
  const subject = "isolation";
  try {
    requireNetworkTools(env);
    return [ok(subject, "run --isolate finds what it needs: slirp4netns, iproute2, /dev/net/tun")];
  } catch (error) {
    if (!(error instanceof MvmError)) throw error;
    return [ok(subject, `run --isolate can't be used: ${[error.message, error.hint].filter(Boolean).join("; ")}`)];
  }
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
