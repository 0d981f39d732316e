import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { configPath, readConfig } from "../core/config.ts";
import type { Context } from "../core/context.ts";
import type { Paths } from "../core/paths.ts";
import { GUEST_LIBRARY } from "../nix/flake.ts";
import { nixSystem } from "../nix/nix.ts";
import { type Check, failed, guarded, ok, warning } from "./check.ts";
import { checkHypervisors } from "./check-hypervisor.ts";
import { checkNix } from "./check-nix.ts";
import { checkDataDirectory, checkDisk, checkMemory } from "./check-resources.ts";
import { checkIsolation, checkTools, checkUserNamespaces } from "./check-tools.ts";

/** package.json, "engines". */
const OLDEST_NODE = 24;

/** Looks at everything that a build with a snapshot and a run of it need of this machine. */
export async function checkMachine(ctx: Context): Promise<Check[]> {
  const { env, paths, signal } = ctx;
  const looks: readonly [subject: string, look: () => Check[] | Promise<Check[]>][] = [
    ["Node.js", () => [nodeCheck(process.versions.node)]],
    ["data directory", () => checkDataDirectory(paths.dataDir)],
    ["configuration", () => checkConfig(paths)],
    ["Nix", () => checkNix(env, signal)],
    ["guest agent", () => [agentCheck(join(GUEST_LIBRARY, "agent", nixSystem(), "mvm-agent"))]],
    ["hypervisor", () => checkHypervisors(ctx)],
    ["user namespaces", () => checkUserNamespaces(env, signal)],
    ["tools", () => checkTools(paths, env)],
    ["isolation", () => checkIsolation(env)],
    ["memory", checkMemory],
    ["disk", () => checkDisk(paths.dataDir)],
  ];
  const checks: Check[] = [];
  for (const [subject, look] of looks) {
    signal.throwIfAborted();
    ctx.report({ kind: "detail", text: subject });
    checks.push(...(await guarded(subject, look)));
  }
  return checks;
}

export function nodeCheck(version: string): Check {
  if (Number(version.split(".")[0]) >= OLDEST_NODE) return ok("Node.js", version);
  return failed(
    "Node.js",
    `${version} is too old: ${OLDEST_NODE} or newer is needed`,
    `npx -p node@${OLDEST_NODE} mvmctl`,
  );
}

/** The published package has it; a clone builds it. */
export function agentCheck(path: string): Check {
  if (existsSync(path)) return ok("guest agent", path);
  return failed("guest agent", `${path} is missing: this clone was not set up`, "npm run setup");
}

/** @throws MvmError `CORRUPT_FILE`, `NEWER_VERSION` */
function checkConfig(paths: Paths): Check[] {
  const path = configPath(paths);
  const stat = statSync(path, { throwIfNoEntry: false });
  const { registry } = readConfig(paths);
  if (!stat) return [ok("configuration", `none (${path})`)];
  const readableByOthers = (stat.mode & 0o077) !== 0;
  if (readableByOthers && (registry?.secretAccessKey ?? registry?.sessionToken) !== undefined)
    return [warning("configuration", `${path} holds a secret that other users can read`, `chmod 600 ${path}`)];
  return [ok("configuration", path)];
}
