import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { TemplateName } from "../src/core/names.ts";
import type { Paths } from "../src/core/paths.ts";
import { findVmProcesses, isAlive, signalProcess, VM_DIRECTORY_VARIABLE } from "../src/core/process-identity.ts";
import { newIdentity } from "../src/guest/identity.ts";
import { qemuArguments } from "../src/hypervisor/qemu-arguments.ts";
import { probeQemu } from "../src/hypervisor/qemu-probe.ts";
import { currentRevision } from "../src/template/revisions.ts";
import { readSnapshots } from "../src/template/snapshots.ts";
import { vmConfigOf } from "../src/template/vm-config.ts";
import { timeProcess } from "./measure.ts";

export interface BareTool {
  /** Restores into a fresh directory, and returns the wall time of the whole script. */
  restore(name: string, until: "woken" | "handshake"): Promise<number>;
}

/** The bare script with the same QEMU, the same arguments and the same files as `mvmctl run`. */
export async function bareTool(
  paths: Paths,
  template: TemplateName,
  workDir: string,
  env: NodeJS.ProcessEnv,
): Promise<BareTool> {
  const revision = currentRevision(paths, template)!;
  const [stored] = readSnapshots(paths.snapshots(template, revision.id));
  const facts = await probeQemu(paths.cache, env);
  const files = {
    vmstate: join(stored!.directory, stored!.snapshot.files.vmstate.file),
    memory: join(stored!.directory, stored!.snapshot.files.memory.file),
  };
  return {
    async restore(name, until) {
      const directory = join(workDir, name);
      mkdirSync(directory, { recursive: true });
      const config = vmConfigOf(revision, { directory, dataDisk: undefined, ports: [] }, stored!.snapshot);
      const args = qemuArguments(config, facts, { kind: "private", path: files.memory }, files);
      const body = until === "woken" ? JSON.stringify(newIdentity(name, "worker", {})) : "-";
      const script = join(import.meta.dirname, "bare-restore.pl");
      const vmEnv = { ...env, [VM_DIRECTORY_VARIABLE]: directory };
      return await timeProcess("perl", [script, directory, files.vmstate, body, facts.binary, ...args], vmEnv);
    },
  };
}

/** Ends all VMs below a directory and removes what they left. */
export async function endVms(directory: string): Promise<void> {
  for (const vm of findVmProcesses(directory)) {
    signalProcess(vm, "SIGKILL");
    while (isAlive(vm)) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  rmSync(directory, { recursive: true, force: true });
}
