import * as v from "valibot";
import type { MvmError } from "../core/errors.ts";
import type { ProcessIdentity } from "../core/process-identity.ts";

/** Best first. */
export const HYPERVISORS = ["firecracker", "qemu"] as const;
export type HypervisorName = (typeof HYPERVISORS)[number];

/**
 * What decides whether a snapshot can be loaded: all fields must be equal. `cpuModel` is the virtual CPU under emulation
 * and the host's real one under KVM, whose features the guest has seen.
 */
export const HypervisorIdentitySchema = v.strictObject({
  name: v.picklist(HYPERVISORS),
  version: v.string(),
  accelerator: v.picklist(["kvm", "tcg"]),
  architecture: v.string(),
  cpuModel: v.string(),
  /** Counts up when our own device layout changes: such snapshots no longer fit. */
  layout: v.number(),
});
export type HypervisorIdentity = v.InferOutput<typeof HypervisorIdentitySchema>;

/** A host port that reaches a guest's TCP port. */
export interface PortForward {
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly guestPort: number;
}

/**
 * A VM's own network, made and removed by whoever starts the VM: for one that is isolated, and wherever the hypervisor brings
 * none (`Capabilities.userNetwork`). Without user networks, a snapshot fits only VMs that have one like the captured VM had one.
 */
export interface VmNetwork {
  /** Path of the network namespace that the hypervisor runs in, as nsenter(1) takes it. */
  readonly netns: string;
  /** Put before the hypervisor's command, it starts it in the namespace; without one, nsenter(1) does. */
  readonly prefix?: readonly string[];
  /** The hypervisor's standard input, if the network ends with the last process that holds it. */
  readonly lifeline?: number;
  /** The tap device in it: the same name for every VM. */
  readonly tap: string;
  readonly guestMac: string;
  /** `ADDRESS/PREFIX,GATEWAY,DNS`, for the guest's kernel command line. */
  readonly guestAddress: string;
}

/** In the VM's directory: what the guest writes to its console, and what the hypervisor says. */
export const CONSOLE_LOG = "console.log";
export const HYPERVISOR_LOG = "hypervisor.log";

/** A VM as a driver sees it. All paths are absolute. */
export interface VmConfig {
  /** The VM's own directory: sockets and logs are made in it. */
  readonly directory: string;
  readonly cpus: number;
  readonly memMiB: number;
  readonly kernel: string;
  readonly initrd: string | undefined;
  readonly rootfs: { readonly path: string; readonly type: string };
  /** Parameters from the image and from us; the driver adds what its devices need. */
  readonly kernelCommandLine: string;
  readonly dataDisk: string | undefined;
  readonly ports: readonly PortForward[];
  readonly network?: VmNetwork | undefined;
}

/** How a hypervisor is locked up beyond what it always is. */
export interface Jail {
  /** What it runs as. */
  readonly uid: number;
  readonly gid: number;
  /** Limits of its cgroup (v2), by file name: `memory.max`, `cpu.max`, `pids.max`. */
  readonly cgroup: Readonly<Record<string, string>>;
}

export interface StartOptions {
  /** Ends the VM with the process that started it: for temporary VMs and `run --foreground`. */
  readonly dieWithParent?: boolean;
  /** Only where `Capabilities.jail` says so. */
  readonly jail?: Jail | undefined;
  /** Called when the hypervisor's process runs and has yet to load: the time to do what else takes time. */
  readonly onStarted?: ((vm: VmRef) => void) | undefined;
  /** Called by a driver whose guests have ports, when a snapshot is loaded: the guest runs a moment later. */
  readonly onLoaded?: (() => void) | undefined;
}

export interface BootOptions extends StartOptions {
  /** Memory in a file that is written through: for a VM that will be snapshotted, whose memory it then is. */
  readonly memoryFile?: string;
}

export interface SnapshotFiles {
  readonly vmstate: string;
  readonly memory: string;
}

/** A VM that was started: enough for another process to find it again. */
export interface VmRef {
  readonly directory: string;
  readonly process: ProcessIdentity;
}

/** How the host reaches the guest's agent. */
export type AgentEndpoint =
  | { readonly kind: "ports"; readonly sockets: readonly string[] }
  | { readonly kind: "vsock"; readonly socket: string; readonly port: number };

/** What a driver can do: callers ask before they call. */
export interface Capabilities {
  readonly snapshot: boolean;
  /** Published ports without privileges or set-up. */
  readonly userNetwork: boolean;
  readonly jail: boolean;
}

export interface Driver {
  readonly name: HypervisorName;
  readonly capabilities: Capabilities;
  /**
   * Finds the hypervisor on this machine and what snapshots of it fit.
   * @throws MvmError `HYPERVISOR_MISSING`, `HYPERVISOR_UNUSABLE`, with what to install
   */
  probe(signal?: AbortSignal): Promise<HypervisorIdentity>;
  /** What makes VMs slower here than they could be, in a clause with what mends it. After `probe`. */
  drawback?(): Promise<string | undefined>;
  /** Starts a VM and returns as soon as its process runs; the guest boots on. @throws MvmError `VM_START_FAILED`, `PORT_IN_USE` */
  boot(config: VmConfig, options?: BootOptions): Promise<VmRef>;
  /** Starts a VM from a snapshot's files, which it maps privately and never writes. It runs when this returns or soon after. */
  restore(config: VmConfig, files: SnapshotFiles, options?: StartOptions): Promise<VmRef>;
  /** @throws MvmError `PAUSE_UNSUPPORTED` if this hypervisor's guests do not run on well after a pause */
  pause(vm: VmRef, before: "snapshot" | "resume"): Promise<void>;
  resume(vm: VmRef): Promise<void>;
  /** Writes the state of a paused VM that was booted with `memoryFile`; afterwards the memory is in that file, which is `files.memory`. */
  snapshot(vm: VmRef, files: SnapshotFiles): Promise<void>;
  /**
   * Ends the hypervisor of a VM's directory now, whatever the guest does, and returns when it is gone. Finds one that was
   * never recorded too.
   */
  kill(vm: { readonly directory: string; readonly process?: ProcessIdentity | undefined }): Promise<void>;
  agentEndpoint(directory: string): AgentEndpoint;
  /** Why the VM's process ended by itself, from what it left in its logs. */
  explainEnd(directory: string): MvmError;
  /** What the guest wrote to its console, and what the hypervisor said. */
  logFiles(directory: string): { readonly console: string; readonly hypervisor: string };
}
