import type { HypervisorIdentity } from "../hypervisor/driver.ts";
import { misfits, type StoredSnapshot } from "../template/snapshots.ts";
import type { VmSizes } from "../template/vm-config.ts";

/** How an instance will be started. */
export type StartPlan =
  | { readonly start: "restored"; readonly snapshot: StoredSnapshot }
  | { readonly start: "booted"; readonly reason: string };

export interface StartWish {
  /** The host's hypervisor. */
  readonly host: HypervisorIdentity;
  readonly snapshots: readonly StoredSnapshot[];
  readonly sizes: VmSizes;
  /** Asked for a cold boot. */
  readonly cold: boolean;
  /** A data disk of this name's earlier life: a snapshot's memory knows nothing of it. */
  readonly keptDataDisk: boolean;
}

/** Chooses the snapshot that fits, or says in one sentence why the instance boots cold. */
export function planStart(wish: StartWish): StartPlan {
  const booted = (reason: string): StartPlan => ({ start: "booted", reason });
  if (wish.cold) return booted("a cold boot was asked for");
  if (wish.snapshots.length === 0) return booted("the revision has no snapshot");
  if (wish.keptDataDisk) return booted("it continues with its own data disk, which no snapshot knows");
  const fitting = wish.snapshots.filter(({ snapshot }) => misfits(snapshot.hypervisor, wish.host).length === 0);
  if (fitting.length === 0) {
    const [nearest = []] = wish.snapshots
      .map(({ snapshot }) => misfits(snapshot.hypervisor, wish.host))
      .sort((a, b) => a.length - b.length);
    return booted(`no snapshot fits this machine: ${nearest.join(", ")}`);
  }
  const [snapshot] = fitting.filter(({ snapshot }) => differentSizes(snapshot, wish.sizes).length === 0);
  if (snapshot) return { start: "restored", snapshot };
  return booted(`a snapshot keeps its sizes: ${differentSizes(fitting[0]!.snapshot, wish.sizes).join(", ")}`);
}

function differentSizes(snapshot: VmSizes, wanted: VmSizes): string[] {
  const sizes = [
    ["cpus", snapshot.cpus, wanted.cpus],
    ["mem", snapshot.memMiB, wanted.memMiB],
    ["data disk", snapshot.dataDiskMiB, wanted.dataDiskMiB],
  ] as const;
  return sizes
    .filter(([, has, wants]) => has !== wants)
    .map(([name, has, wants]) => `${name} is ${has} in it and ${wants} was asked for`);
}
