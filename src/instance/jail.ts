import { createHash } from "node:crypto";
import { MiB } from "../core/sizes.ts";
import type { Jail } from "../hypervisor/driver.ts";
import type { VmSizes } from "../template/vm-config.ts";

/** User ids from here on belong to nobody: login.defs(5), systemd and containers use lower ones. */
const FIRST_UID = 0x7000_0000;
const UIDS = 0x0100_0000;
/** What a hypervisor needs besides the guest's memory: its own, and page tables. */
const OVERHEAD_BYTES = 128 * MiB;
/** Threads besides one for each virtual CPU. */
const SPARE_THREADS = 16;
const CPU_PERIOD_US = 100_000;

/** The jail of a VM: a user that no other VM has (but by a chance of one in 16 million), and what the VM needs, as its limits. */
export function jailFor(directory: string, { cpus, memMiB }: VmSizes): Jail {
  const uid = FIRST_UID + (createHash("sha256").update(directory).digest().readUInt32BE(0) % UIDS);
  return {
    uid,
    gid: uid,
    cgroup: {
      "memory.max": String(memMiB * MiB + OVERHEAD_BYTES),
      "cpu.max": `${cpus * CPU_PERIOD_US} ${CPU_PERIOD_US}`,
      "pids.max": String(cpus + SPARE_THREADS),
    },
  };
}
