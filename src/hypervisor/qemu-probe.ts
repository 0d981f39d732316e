import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import type { DocumentKind } from "../core/documents.ts";
import { MvmError } from "../core/errors.ts";
import { findProgram, run } from "../core/process.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { type HypervisorIdentity, HypervisorIdentitySchema } from "./driver.ts";
import { probeKvm, runBriefly } from "./kvm-probe.ts";
import { hostCpuModel, probeKey, readProbe, writeProbe } from "./probe-cache.ts";
import { QEMU_LAYOUT, type QemuHost } from "./qemu-arguments.ts";

export const QEMU_INSTALL_HINT = "install it: apt-get install qemu-system-x86 (or set MVM_QEMU_BIN)";

export interface QemuFacts extends QemuHost {
  readonly binary: string;
  /** Why KVM is not used, where it is not. */
  readonly withoutKvm?: string | undefined;
}

const QemuFactsSchema = v.object({
  version: v.literal(1),
  /** Changes when another QEMU is installed or the machine boots again. */
  key: v.string(),
  identity: HypervisorIdentitySchema,
  tscKHz: v.number(),
  withoutKvm: v.optional(v.string()),
});
const QemuFactsDocument: DocumentKind<v.InferOutput<typeof QemuFactsSchema>> = {
  title: "QEMU probe",
  version: 1,
  schema: QemuFactsSchema,
};

/**
 * Finds QEMU and what it can do here. Asking it takes a tenth of a second, so the answer is kept until the machine boots
 * again or QEMU changes.
 * @throws MvmError `HYPERVISOR_MISSING`, `HYPERVISOR_UNUSABLE`
 */
export async function probeQemu(cacheDir: string, env: NodeJS.ProcessEnv, signal?: AbortSignal): Promise<QemuFacts> {
  if (process.arch !== "x64") {
    throw new MvmError("HYPERVISOR_UNUSABLE", `the QEMU driver knows x86_64 only, and this machine is ${process.arch}`);
  }
  const binary = findQemu(env);
  const key = probeKey(binary, QEMU_LAYOUT);
  const path = join(cacheDir, "qemu.json");
  const known = readProbe(QemuFactsDocument, path, key);
  if (known) return { binary, ...known };

  const version = await askVersion(binary, signal);
  const kvm = await probeKvm(() => runTinyGuest(binary, cacheDir, signal));
  const tscKHz = timeStampKHz(readFileSync("/proc/cpuinfo", "utf8"));
  const identity: HypervisorIdentity = {
    name: "qemu",
    version,
    accelerator: kvm.usable ? "kvm" : "tcg",
    architecture: "x86_64",
    cpuModel: kvm.usable ? hostCpuModel() : `max at ${Math.round(tscKHz / 1000)} MHz`,
    layout: QEMU_LAYOUT,
  };
  const withoutKvm = kvm.usable ? undefined : kvm.reason;
  const found = { identity, tscKHz, ...(withoutKvm ? { withoutKvm } : {}) };
  writeProbe(QemuFactsDocument, path, { key, ...found });
  return { binary, ...found };
}

/** Linux derives a CPU's bogomips from its time stamp counter, two per MHz, and knows it exactly (calibrate_delay). */
function timeStampKHz(cpuinfo: string): number {
  return Math.round(Number(/^bogomips\s*:\s*([\d.]+)/m.exec(cpuinfo)?.[1] ?? 0) * 500);
}

function findQemu(env: NodeJS.ProcessEnv): string {
  const wanted = env["MVM_QEMU_BIN"] || "qemu-system-x86_64";
  const found = findProgram(wanted, env);
  if (found) return found;
  throw new MvmError("HYPERVISOR_MISSING", `QEMU is not installed: ${wanted} was not found`, {
    hint: QEMU_INSTALL_HINT,
  });
}

async function askVersion(binary: string, signal?: AbortSignal): Promise<string> {
  const result = await run(binary, ["--version"], {
    timeoutMs: 10_000,
    installHint: QEMU_INSTALL_HINT,
    ...(signal ? { signal } : {}),
  });
  const version = /version (\d+\.\d+(\.\d+)?)/.exec(result.stdout)?.[1];
  if (version) return version;
  throw new MvmError("HYPERVISOR_UNUSABLE", `${binary} did not say its version`, {
    hint: QEMU_INSTALL_HINT,
    detail: (result.stderr || result.stdout).slice(-2000),
  });
}

/** x86's reset vector lies 16 bytes below the end of the firmware (Intel SDM 3A, 10.1.4). */
const FIRMWARE_BYTES = 64 * 1024;
/** `mov al, 0x10; out 0xf4, al; hlt`: isa-debug-exit at port 0xf4 ends QEMU with code 2 * 0x10 + 1. */
const GUEST_CODE = [0xb0, 0x10, 0xe6, 0xf4, 0xf4];
const GUEST_EXIT_CODE = 0x21;

async function runTinyGuest(qemu: string, scratch: string, signal?: AbortSignal): Promise<boolean> {
  using staging = makeStagingDirectory(scratch, "kvm-probe");
  const firmware = join(staging.path, "probe.bin");
  const image = Buffer.alloc(FIRMWARE_BYTES, 0xf4);
  image.set(GUEST_CODE, FIRMWARE_BYTES - 16);
  writeFileSync(firmware, image);
  const args = "-M microvm,acpi=off,accel=kvm -cpu host -m 16 -nodefaults -no-user-config -display none".split(" ");
  const exit = ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"];
  const result = await runBriefly(qemu, [...args, "-bios", firmware, ...exit], { signal });
  return result?.exitCode === GUEST_EXIT_CODE;
}
