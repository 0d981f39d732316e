import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findVmProcesses, signalProcess } from "../../src/core/process-identity.ts";
import type { Driver, VmConfig } from "../../src/hypervisor/driver.ts";
import { createFirecrackerDriver } from "../../src/hypervisor/firecracker.ts";
import { FIRECRACKER_LAYOUT } from "../../src/hypervisor/firecracker-machine.ts";
import { runTinyGuest } from "../../src/hypervisor/firecracker-probe.ts";
import { hostCpuModel, probeKey } from "../../src/hypervisor/probe-cache.ts";
import { elfKernel } from "../../src/hypervisor/tiny-kernel.ts";
import { findFirecracker, versionOf } from "./real-firecracker.ts";

/** Why a real Firecracker can't run a guest of a few instructions here, or false. A KVM that no kernel would boot on is enough. */
export async function whyNoFirecrackerGuests(): Promise<string | false> {
  const binary = findFirecracker();
  if (!binary) return "there is no Firecracker here (MVM_FC_BIN, or `firecracker` on the PATH)";
  const scratch = mkdtempSync(join(tmpdir(), "mvm-fc-probe-"));
  try {
    return (await runTinyGuest(binary, scratch, { timeoutMs: 20_000 }))
      ? false
      : "Firecracker runs no guest here: KVM does not work";
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/**
 * A guest without an operating system: it writes a dot to its console, counts to 65,536, and again. It shows that a
 * VM runs, stands still, and goes on where it was.
 */
const TICKING = [
  ...[0x66, 0xba, 0xf8, 0x03], // mov dx, 0x3f8
  ...[0xb0, 0x2e, 0xee], //       mov al, '.'; out dx, al
  ...[0xb9, 0x00, 0x00, 0x01, 0x00], // mov ecx, 0x10000
  ...[0xff, 0xc9, 0x75, 0xfc], // dec ecx; jnz to it
  ...[0xeb, 0xf2], //             jmp to `mov al`
];

export interface FirecrackerVms extends Disposable {
  readonly root: string;
  readonly driver: Driver;
  readonly version: string;
  /** A VM's configuration, in a directory of its own. */
  config(name: string): VmConfig;
  /** How many dots a VM's guest has written. */
  ticks(config: VmConfig): number;
}

/** The driver of useFirecrackerVms, in a process of its own too. */
export function driverIn(root: string): Driver {
  return createFirecrackerDriver({ paths: { dataDir: root, cache: join(root, "cache") }, env: process.env });
}

/**
 * A driver for the real Firecracker, which takes this machine's KVM for usable: what its own probe may refuse to run a
 * template on is good enough for guests of ten instructions.
 */
export async function useFirecrackerVms(): Promise<FirecrackerVms> {
  const binary = findFirecracker()!;
  const version = await versionOf(binary);
  const root = mkdtempSync(join(tmpdir(), "mvm-fc-vms-"));
  const cacheDir = join(root, "cache");
  mkdirSync(cacheDir);
  const identity = { name: "firecracker", version, accelerator: "kvm", architecture: "x86_64" };
  const facts = { ...identity, cpuModel: hostCpuModel(), layout: FIRECRACKER_LAYOUT };
  const known = { version: 1, key: probeKey(binary, FIRECRACKER_LAYOUT), identity: facts };
  writeFileSync(join(cacheDir, "firecracker.json"), JSON.stringify(known));
  writeFileSync(join(root, "kernel"), elfKernel(TICKING));
  writeFileSync(join(root, "rootfs"), Buffer.alloc(4096));
  const driver = driverIn(root);
  return {
    root,
    driver,
    version,
    config: (name) => {
      const directory = join(root, name);
      mkdirSync(directory, { recursive: true });
      return {
        directory,
        cpus: 1,
        memMiB: 64,
        kernel: join(root, "kernel"),
        initrd: undefined,
        rootfs: { path: join(root, "rootfs"), type: "erofs" },
        kernelCommandLine: "",
        dataDisk: undefined,
        ports: [],
      };
    },
    ticks: ({ directory }) =>
      readFileSync(driver.logFiles(directory).console, "utf8")
        .replaceAll(/^.*\[anonymous-instance.*$/gm, "")
        .split(".").length - 1,
    [Symbol.dispose]: () => {
      for (const stray of findVmProcesses(root)) signalProcess(stray, "SIGKILL");
      rmSync(root, { recursive: true, force: true });
    },
  };
}
