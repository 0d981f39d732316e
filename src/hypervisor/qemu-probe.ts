import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { type DocumentKind, readDocument, writeDocument } from "../core/documents.ts";
import { MvmError } from "../core/errors.ts";
import { ensureDirectory } from "../core/files.ts";
import { findProgram, run } from "../core/process.ts";
import { bootId } from "../core/process-identity.ts";
import { type HypervisorIdentity, HypervisorIdentitySchema } from "./driver.ts";
import { probeKvm } from "./kvm-probe.ts";
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
  const stat = statSync(binary);
  const key = [binary, stat.ino, stat.size, stat.mtimeMs, bootId(), kvmPermission(), QEMU_LAYOUT].join(":");
  const path = join(cacheDir, "qemu.json");
  const known = readKnown(path);
  if (known?.key === key) return { binary, ...known };

  const version = await askVersion(binary, signal);
  const kvm = await probeKvm(binary, cacheDir, signal);
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
  ensureDirectory(cacheDir);
  const found = { identity, tscKHz, ...(withoutKvm ? { withoutKvm } : {}) };
  writeDocument(QemuFactsDocument, path, { key, ...found });
  return { binary, ...found };
}

/** Linux derives a CPU's bogomips from its time stamp counter, two per MHz, and knows it exactly (calibrate_delay). */
function timeStampKHz(cpuinfo: string): number {
  return Math.round(Number(/^bogomips\s*:\s*([\d.]+)/m.exec(cpuinfo)?.[1] ?? 0) * 500);
}

/** A damaged cache is no cache. */
function readKnown(path: string): v.InferOutput<typeof QemuFactsSchema> | undefined {
  try {
    return readDocument(QemuFactsDocument, path);
  } catch {
    return undefined;
  }
}

/** Opening may become allowed (or forbidden) without a reboot. */
function kvmPermission(): string {
  try {
    const { mode, uid, gid } = statSync("/dev/kvm");
    return `${mode}.${uid}.${gid}.${process.getgroups?.().join("+")}`;
  } catch {
    return "none";
  }
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

/** Under KVM the guest sees the host's CPU: its name and its features decide where a snapshot can be loaded. */
function hostCpuModel(): string {
  const cpuinfo = readFileSync("/proc/cpuinfo", "utf8");
  const name = /^model name\s*:\s*(.+)$/m.exec(cpuinfo)?.[1] ?? "unknown";
  const flags = /^flags\s*:\s*(.+)$/m.exec(cpuinfo)?.[1] ?? "";
  return `${name} ${createHash("sha256").update(flags).digest("hex").slice(0, 8)}`;
}
