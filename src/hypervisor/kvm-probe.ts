import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { MvmError } from "../core/errors.ts";
import { type RunResult, run } from "../core/process.ts";

export type KvmAnswer = { readonly usable: true } | { readonly usable: false; readonly reason: string };

/** How long the probe's guest may take: under working KVM it ends in a tenth of this. */
const PROBE_TIMEOUT_MS = 2000;

/**
 * Whether ordinary guests run on /dev/kvm. That the device opens is not enough: under paravirtual nesting it opens, even
 * runs real-mode code, and then a normal kernel hangs. There the CPU shows neither vmx nor svm, so that is asked first;
 * then a tiny guest must really run.
 */
export async function probeKvm(runTinyGuest: () => Promise<boolean>): Promise<KvmAnswer> {
  const unusable = (reason: string): KvmAnswer => ({ usable: false, reason });
  const access = kvmAccess();
  if (access === "none")
    return unusable(
      "there is no /dev/kvm (load it: sudo modprobe kvm_intel, or kvm_amd; in a VM, let its host allow nested virtualisation)",
    );
  if (access === "useless")
    return unusable("/dev/kvm is there, but the CPU shows no hardware virtualisation (vmx, svm)");
  if (access === "forbidden")
    return unusable("you may not open /dev/kvm (sudo usermod -aG kvm $USER, and log in again)");
  return (await runTinyGuest()) ? { usable: true } : unusable("/dev/kvm is there, but a tiny guest did not run on it");
}

/** What can be said of /dev/kvm before it is tried: who may not open one that is useless needs no permission. */
export function kvmAccess(): "none" | "useless" | "forbidden" | "open" {
  if (!existsSync("/dev/kvm")) return "none";
  if (!cpuHasVirtualisation(readFileSync("/proc/cpuinfo", "utf8"))) return "useless";
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return "open";
  } catch {
    return "forbidden";
  }
}

export function cpuHasVirtualisation(cpuinfo: string): boolean {
  return /^flags\s*:.*\b(vmx|svm)\b/m.test(cpuinfo);
}

/** Runs a hypervisor with a tiny guest; undefined if it did not end in time, as on a KVM that hangs. */
export async function runBriefly(
  command: string,
  args: readonly string[],
  options: { readonly signal?: AbortSignal | undefined; readonly timeoutMs?: number },
): Promise<RunResult | undefined> {
  const { signal, timeoutMs = PROBE_TIMEOUT_MS } = options;
  try {
    return await run(command, args, { timeoutMs, ...(signal ? { signal } : {}) });
  } catch (error) {
    if (error instanceof MvmError && error.code === "PROCESS_TIMEOUT") return undefined;
    throw error;
  }
}
