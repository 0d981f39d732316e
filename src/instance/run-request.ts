import type { Context } from "../core/context.ts";
import type { InstanceName, RevisionId, TemplateName } from "../core/names.ts";
import type { Driver, HypervisorIdentity, PortForward } from "../hypervisor/driver.ts";
import type { StoredRevision } from "../template/revisions.ts";
import type { VmSizes } from "../template/vm-config.ts";
import type { InstanceRecord } from "./record.ts";
import type { StartPlan } from "./start-plan.ts";
import type { Volume } from "./volumes.ts";

export interface RunRequest {
  readonly template: TemplateName;
  /** The current one if not given. */
  readonly revision?: string;
  /** Made up if not given. */
  readonly name?: InstanceName;
  /** A host port 0 is any that is free: the outcome names it. */
  readonly ports: readonly PortForward[];
  readonly volumes: readonly Volume[];
  readonly env: Readonly<Record<string, string>>;
  /** The revision's if not given. Other sizes than a snapshot's mean a cold boot. */
  readonly cpus?: number;
  readonly memMiB?: number;
  readonly dataDiskMiB?: number;
  readonly hypervisor?: string;
  /** Lock the hypervisor up with a user, a cgroup and a root of its own. */
  readonly jail?: boolean;
  /** A network of its own, in which the host and cloud metadata services are blocked. Where there is no other: always. */
  readonly isolate?: boolean;
  /** Blocked IPv4 addresses and networks that such a guest can reach all the same; 10.0.2.2 is the host's loopback. */
  readonly allow?: readonly string[];
  /** Boot even if a snapshot would fit. */
  readonly cold: boolean;
  /** `running`: the agent answered and knows who it is. `healthy`: every check has passed since. */
  readonly waitFor: "running" | "healthy";
  readonly timeoutMs: number;
  /** End the VM with this process. */
  readonly dieWithParent?: boolean;
}

export interface RunOutcome {
  readonly name: InstanceName;
  readonly template: TemplateName;
  readonly revision: RevisionId;
  readonly start: "restored" | "booted";
  /** Why it was not restored. */
  readonly coldBootReason?: string;
  readonly hypervisor: HypervisorIdentity;
  readonly ports: readonly PortForward[];
  /** Milliseconds from the call to the agent's answer. */
  readonly runningMs: number;
  /** Milliseconds from the call to every check having passed, if that was waited for. */
  readonly healthyMs?: number;
}

/** An instance on its way: its name is taken, its directory is there. */
export interface Starting {
  readonly ctx: Context;
  readonly request: RunRequest;
  readonly revision: StoredRevision;
  readonly driver: Driver;
  readonly plan: StartPlan;
  readonly directory: string;
  readonly record: InstanceRecord;
  readonly sizes: VmSizes;
  /** There is a data disk of an earlier instance of this name. */
  readonly ownsDisk: boolean;
  /** monotonicMs() of the call. */
  readonly started: number;
}
