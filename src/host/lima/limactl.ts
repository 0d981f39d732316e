import { realpathSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { MvmError } from "../../core/errors.ts";
import { findProgram, run } from "../../core/process.ts";
import { lastLines } from "../../core/text.ts";
import { LIMA_LAYOUT, PACKAGE_MOUNT } from "./template.ts";

/** Lima's name for our VM. */
export const LIMA_INSTANCE = "mvmctl";

/** It reads a few files and asks the VM's agent, to which Lima itself gives three seconds. */
const LIST_TIMEOUT_MS = 20_000;

/** The part of `limactl list --json` that we look at: a JSON object a line. */
const ListedSchema = v.object({
  name: v.string(),
  status: v.string(),
  dir: v.string(),
  cpus: v.optional(v.number(), 0),
  /** Bytes. */
  memory: v.optional(v.number(), 0),
  config: v.nullish(
    v.object({
      mounts: v.nullish(v.array(v.object({ location: v.string(), mountPoint: v.nullish(v.string()) }))),
      param: v.nullish(v.record(v.string(), v.string())),
    }),
  ),
});

/** Our VM as Lima knows it. */
export interface LimaVm {
  readonly directory: string;
  readonly cpus: number;
  readonly memMiB: number;
  /** 0 where the VM does not say: then it is not ours. */
  readonly layout: number;
  /** The package that the VM runs mvmctl from, on the host. */
  readonly packageDirectory: string | undefined;
  /** Directories of the host that the VM sees, at the same path. */
  readonly sharedDirectories: readonly string[];
}

export type LimaStatus =
  | { readonly state: "no-limactl" | "missing" }
  | { readonly state: "running" | "stopped" | "newer"; readonly vm: LimaVm }
  /** Of an older layout, or of another copy of mvmctl. */
  | { readonly state: "outdated"; readonly running: boolean; readonly vm: LimaVm }
  | { readonly state: "broken"; readonly detail: string; readonly vm: LimaVm };

export interface LimaHost {
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
}

/** Ours on the host's side, in the home that the VM sees too, wherever the data directory is. */
export function limaDirectory(env: NodeJS.ProcessEnv): string {
  return join(env["HOME"] || homedir(), ".mvm", "lima");
}

/** The root of this package: what the VM has to run. Like bin/, src/host/lima/ and dist/lib/ know how deep they are. */
export function packageDirectory(): string {
  const here = import.meta.dirname;
  return realpathSync(join(here, here.endsWith(join("host", "lima")) ? "../../.." : "../.."));
}

/**
 * What is there of Lima and of our VM.
 * @throws MvmError `LIMA_FAILED` if limactl itself fails
 */
export async function limaStatus({ env, signal }: LimaHost): Promise<LimaStatus> {
  const limactl = findProgram("limactl", env);
  if (!limactl) return { state: "no-limactl" };
  const listed = await run(limactl, ["list", "--json"], { env, signal, timeoutMs: LIST_TIMEOUT_MS });
  if (listed.exitCode !== 0) throw limaFailed("list the VMs", listed.stderr);
  const found = parseList(listed.stdout).find(({ name }) => name === LIMA_INSTANCE);
  return found ? statusOf(found, lastLines(listed.stderr, 3)) : { state: "missing" };
}

function parseList(text: string): v.InferOutput<typeof ListedSchema>[] {
  try {
    const lines = text.split("\n").filter((line) => line.trim() !== "");
    return lines.map((line) => v.parse(ListedSchema, JSON.parse(line)));
  } catch (cause) {
    throw new MvmError("LIMA_FAILED", "limactl list --json says something that this mvmctl does not understand", {
      hint: "update Lima and mvmctl: brew upgrade lima",
      cause,
    });
  }
}

function statusOf(listed: v.InferOutput<typeof ListedSchema>, warnings: string): LimaStatus {
  const mounts = listed.config?.mounts ?? [];
  const vm: LimaVm = {
    directory: listed.dir,
    cpus: listed.cpus,
    memMiB: Math.round(listed.memory / (1024 * 1024)),
    layout: Number(listed.config?.param?.["MvmLayout"] ?? 0),
    packageDirectory: mounts.find(({ mountPoint }) => mountPoint === PACKAGE_MOUNT)?.location,
    sharedDirectories: mounts
      .filter(({ location, mountPoint }) => !mountPoint || mountPoint === location)
      .map(({ location }) => (location === "~" ? homedir() : location)),
  };
  if (listed.status !== "Running" && listed.status !== "Stopped")
    return { state: "broken", vm, detail: warnings || `Lima calls it ${listed.status || "unknown"}` };
  if (vm.layout > LIMA_LAYOUT) return { state: "newer", vm };
  const running = listed.status === "Running";
  if (vm.layout < LIMA_LAYOUT || vm.packageDirectory !== packageDirectory()) return { state: "outdated", running, vm };
  return { state: running ? "running" : "stopped", vm };
}

/** What limactl said on its way out, as an error. */
export function limaFailed(doing: string, stderr: string): MvmError {
  return new MvmError("LIMA_FAILED", `limactl could not ${doing}`, {
    detail: lastLines(stderr, 5) || "it left no message",
    hint: "`mvmctl setup` looks at the VM and mends it",
  });
}
