import { accessSync, constants, readFileSync } from "node:fs";
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
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch (error) {
    return { usable: false, reason: describeAccess(error) };
  }
  if (!cpuHasVirtualisation(readFileSync("/proc/cpuinfo", "utf8"))) {
    return { usable: false, reason: "/dev/kvm is there, but the CPU shows no hardware virtualisation (vmx, svm)" };
  }
  return (await runTinyGuest())
    ? { usable: true }
    : { usable: false, reason: "/dev/kvm is there, but a tiny guest did not run on it" };
}

export function cpuHasVirtualisation(cpuinfo: string): boolean {
  return /^flags\s*:.*\b(vmx|svm)\b/m.test(cpuinfo);
}

function describeAccess(error: unknown): string {
  return (error as NodeJS.ErrnoException).code === "ENOENT"
    ? "there is no /dev/kvm (load it: sudo modprobe kvm_intel, or kvm_amd; in a VM, let its host allow nested virtualisation)"
    : "you may not open /dev/kvm (sudo usermod -aG kvm $USER, and log in again)";
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
