import { accessSync, constants, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MvmError } from "../core/errors.ts";
import { run } from "../core/process.ts";
import { makeStagingDirectory } from "../core/staging.ts";

export type KvmAnswer = { readonly usable: true } | { readonly usable: false; readonly reason: string };

/** How long the probe's guest may take: under working KVM it ends in a tenth of this. */
const PROBE_TIMEOUT_MS = 2000;
/** x86's reset vector lies 16 bytes below the end of the firmware (Intel SDM 3A, 10.1.4). */
const FIRMWARE_BYTES = 64 * 1024;
/** `mov al, 0x10; out 0xf4, al; hlt`: isa-debug-exit at port 0xf4 ends QEMU with code 2 * 0x10 + 1. */
const PROBE_CODE = [0xb0, 0x10, 0xe6, 0xf4, 0xf4];
const PROBE_EXIT_CODE = 0x21;

/**
 * Whether ordinary guests run on /dev/kvm. That the device opens is not enough: under paravirtual nesting it opens, even
 * runs real-mode code, and then a normal kernel hangs. There the CPU shows neither vmx nor svm, so that is asked first;
 * then a tiny guest must really run.
 */
export async function probeKvm(qemu: string, scratch: string, signal?: AbortSignal): Promise<KvmAnswer> {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch (error) {
    return { usable: false, reason: describeAccess(error) };
  }
  if (!cpuHasVirtualisation(readFileSync("/proc/cpuinfo", "utf8"))) {
    return { usable: false, reason: "/dev/kvm is there, but the CPU shows no hardware virtualisation (vmx, svm)" };
  }
  return (await runTinyGuest(qemu, scratch, signal))
    ? { usable: true }
    : { usable: false, reason: "/dev/kvm is there, but a tiny guest did not run on it" };
}

export function cpuHasVirtualisation(cpuinfo: string): boolean {
  return /^flags\s*:.*\b(vmx|svm)\b/m.test(cpuinfo);
}

function describeAccess(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  return code === "ENOENT" ? "there is no /dev/kvm" : "you may not open /dev/kvm (add yourself to the group kvm)";
}

async function runTinyGuest(qemu: string, scratch: string, signal?: AbortSignal): Promise<boolean> {
  using staging = makeStagingDirectory(scratch, "kvm-probe");
  const firmware = join(staging.path, "probe.bin");
  const image = Buffer.alloc(FIRMWARE_BYTES, 0xf4);
  image.set(PROBE_CODE, FIRMWARE_BYTES - 16);
  writeFileSync(firmware, image);
  const args = "-M microvm,acpi=off,accel=kvm -cpu host -m 16 -nodefaults -no-user-config -display none".split(" ");
  try {
    const result = await run(qemu, [...args, "-bios", firmware, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"], {
      timeoutMs: PROBE_TIMEOUT_MS,
      ...(signal ? { signal } : {}),
    });
    return result.exitCode === PROBE_EXIT_CODE;
  } catch (error) {
    if (error instanceof MvmError && error.code === "PROCESS_TIMEOUT") return false;
    throw error;
  }
}
