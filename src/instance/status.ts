import { readFileSync } from "node:fs";
import { readConfig } from "../core/config.ts";
import type { Context } from "../core/context.ts";
import { diskUsage } from "../core/disk-usage.ts";
import { MvmError } from "../core/errors.ts";
import { chooseDriver } from "../hypervisor/choose.ts";
import type { HypervisorIdentity } from "../hypervisor/driver.ts";
import { probeQemu } from "../hypervisor/qemu-probe.ts";
import { listInstances } from "./list.ts";

/** What `run` would use, and why that one. */
export type HypervisorStatus =
  | { readonly usable: true; readonly identity: HypervisorIdentity; readonly why: string }
  | { readonly usable: false; readonly why: string; readonly hint?: string };

export interface InstanceUse {
  readonly name: string;
  readonly state: string;
  /** What the guest was given; absent where the record is damaged. */
  readonly memMiB?: number;
  /** Host memory that its hypervisor takes now: its share of what clones have in common counts in part. */
  readonly memoryBytes?: number;
}

export interface MachineStatus {
  readonly dataDir: string;
  readonly hypervisor: HypervisorStatus;
  readonly instances: readonly InstanceUse[];
  /** Bytes on the disk. */
  readonly disk: { readonly templates: number; readonly instances: number; readonly cache: number };
  /** Where templates are pushed to and pulled from, and what says so. */
  readonly registry: { readonly configured: false } | ConfiguredRegistry;
}

interface ConfiguredRegistry {
  readonly configured: true;
  readonly place: string;
  readonly from: "environment" | "config.json";
}

/** What this machine does now, in one look. @throws MvmError `CORRUPT_FILE` for a damaged config.json */
export async function machineStatus(ctx: Context): Promise<MachineStatus> {
  const { paths } = ctx;
  const seen = new Set<string>();
  return {
    dataDir: paths.dataDir,
    hypervisor: await hypervisorStatus(ctx),
    instances: instancesInUse(ctx),
    disk: {
      templates: diskUsage(paths.templates, seen),
      instances: diskUsage(paths.instances, seen),
      cache: diskUsage(paths.cache, seen),
    },
    registry: registryStatus(ctx),
  };
}

async function hypervisorStatus(ctx: Context): Promise<HypervisorStatus> {
  try {
    // Why it is this one is said once, below.
    const driver = await chooseDriver({ ...ctx, report: () => {} });
    const identity = await driver.probe(ctx.signal);
    return { usable: true, identity, why: await whyThisOne(ctx, identity) };
  } catch (error) {
    if (!(error instanceof MvmError)) throw error;
    return { usable: false, why: error.message, ...(error.hint ? { hint: error.hint } : {}) };
  }
}

async function whyThisOne({ paths, env, signal }: Context, identity: HypervisorIdentity): Promise<string> {
  const forced = env["MVM_HYPERVISOR"] ? `MVM_HYPERVISOR is ${env["MVM_HYPERVISOR"]}; ` : "";
  if (identity.accelerator === "kvm") return `${forced}KVM works`;
  const { withoutKvm } = await probeQemu(paths.cache, env, signal);
  return `${forced}no KVM: ${withoutKvm ?? "it is not used"}`;
}

function instancesInUse(ctx: Context): InstanceUse[] {
  return listInstances(ctx).map((status) => {
    if (status.state === "broken") return { name: status.name, state: status.state };
    const { memMiB, process } = status.record;
    const runs = status.state === "running" || status.state === "paused" || status.state === "starting";
    const memoryBytes = runs && process ? proportionalMemory(process.pid) : undefined;
    return { name: status.name, state: status.state, memMiB, ...(memoryBytes === undefined ? {} : { memoryBytes }) };
  });
}

/** Pss of /proc/PID/smaps_rollup (proc(5)): pages that several processes map count in equal parts. */
function proportionalMemory(pid: number): number | undefined {
  try {
    const kiB = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1];
    return kiB === undefined ? undefined : Number(kiB) * 1024;
  } catch {
    return undefined; // it ended just now, or belongs to somebody else
  }
}

function registryStatus({ paths, env }: Context): MachineStatus["registry"] {
  const fromEnvironment = env["MVM_TEMPLATE_REGISTRY_ENDPOINT"];
  const { registry } = readConfig(paths);
  const endpoint = fromEnvironment || registry?.endpoint;
  if (!endpoint) return { configured: false };
  const bucket = env["MVM_TEMPLATE_REGISTRY_BUCKET"] || registry?.bucket;
  return {
    configured: true,
    place: [withoutCredentials(endpoint), bucket].filter(Boolean).join(", bucket "),
    from: fromEnvironment ? "environment" : "config.json",
  };
}

function withoutCredentials(endpoint: string): string {
  return endpoint.replace(/\/\/[^/@]*@/, "//");
}
