import { existsSync, readFileSync } from "node:fs";
import { MvmError, messageOf } from "../core/errors.ts";
import { run } from "../core/process.ts";
import { GUEST_LIBRARY } from "../nix/flake.ts";
import { NIX_INSTALL_HINT, nix } from "../nix/nix.ts";
import { type Check, failed, ok } from "./check.ts";

/** Where Nix's daemon listens (nix-daemon(8)). */
const DAEMON_SOCKET = "/nix/var/nix/daemon-socket/socket";
/** A cold Nix on a busy machine takes seconds; one that takes longer hangs. */
const TIMEOUT_MS = 60_000;

/** Nix is there, its store can be written, and flakes can be used: as a build does it. */
export async function checkNix(env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Check[]> {
  const version = await askVersion(env, signal);
  if (!version) return [failed("Nix", "nix was not found", "mvmctl setup")];
  const isRoot = process.getuid?.() === 0;
  const hasDaemon = existsSync(DAEMON_SOCKET);
  const found = `${version}, ${howItBuilds(isRoot, hasDaemon)}`;
  const trap = isRoot ? emptyBuildGroup(readGroups()) : undefined;
  if (trap) return [failed("Nix", trap, "groupdel nixbld (root then builds as itself), or add users to the group")];
  try {
    await nix(["flake", "metadata", "--json", `path:${GUEST_LIBRARY}`], { env, signal, offline: true });
    return [ok("Nix", `${found}; flakes work`)];
  } catch (error) {
    signal.throwIfAborted();
    const hint = error instanceof MvmError ? error.hint : undefined;
    // Another user's /nix, and no daemon to build for others: setup installs one.
    const mend = isRoot || hasDaemon ? (hint ?? NIX_INSTALL_HINT) : "mvmctl setup";
    return [failed("Nix", `${found}; flakes can't be used: ${messageOf(error)}`, mend)];
  }
}

async function askVersion(env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<string | undefined> {
  try {
    const { stdout } = await run("nix", ["--version"], { env, signal, timeoutMs: TIMEOUT_MS });
    return /(\d+\.\d+(\.\d+)?)/.exec(stdout)?.[1] ?? "of an unknown version";
  } catch (error) {
    if (error instanceof MvmError && error.code === "PROGRAM_MISSING") return undefined;
    throw error;
  }
}

/** Root opens the store itself; others ask the daemon where there is one. */
function howItBuilds(isRoot: boolean, hasDaemon: boolean): string {
  if (isRoot) return "as root";
  return hasDaemon ? "through its daemon" : "single-user";
}

function readGroups(): string {
  return existsSync("/etc/group") ? readFileSync("/etc/group", "utf8") : "";
}

/**
 * As root, Nix builds as the members of the group nixbld (build-users-group of nix.conf(5)), and refuses to build when
 * there are none. Without the group, mvmctl tells Nix to do without it.
 */
export function emptyBuildGroup(groups: string): string | undefined {
  const group = /^nixbld:[^:]*:[^:]*:(.*)$/m.exec(groups);
  return group && group[1]!.trim() === ""
    ? "the group nixbld has no members, so Nix refuses to build as root"
    : undefined;
}
