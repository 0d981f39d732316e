import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { type DocumentKind, readDocument, writeDocument } from "../core/documents.ts";
import { ensureDirectory } from "../core/files.ts";
import { bootId } from "../core/process-identity.ts";

/** What probes have in common. Their answers are kept until the machine boots again or what they depend on changes. */

/** Changes when another program is installed, the machine boots again, or /dev/kvm may be opened by others. */
export function probeKey(binary: string, layout: number): string {
  const stat = statSync(binary);
  return [binary, stat.ino, stat.size, stat.mtimeMs, bootId(), kvmPermission(), layout].join(":");
}

/** A damaged cache is no cache, and one with another key is old. */
export function readProbe<T extends { version: number; key: string }>(
  kind: DocumentKind<T>,
  path: string,
  key: string,
): T | undefined {
  try {
    const known = readDocument(kind, path);
    return known?.key === key ? known : undefined;
  } catch {
    return undefined;
  }
}

export function writeProbe<T extends { version: number; key: string }>(
  kind: DocumentKind<T>,
  path: string,
  value: Omit<T, "version">,
): void {
  ensureDirectory(dirname(path));
  writeDocument(kind, path, value);
}

/** Opening may become allowed (or forbidden) without a reboot. */
function kvmPermission(): string {
  try {
    const { mode, uid, gid } = statSync("/dev/kvm");
    return `${mode}.${uid}.${gid}.${process.getuid?.()}.${process.getgroups?.().join("+")}`;
  } catch {
    return "none";
  }
}

/** Under KVM the guest sees the host's CPU: its name and its features decide where a snapshot can be loaded. */
export function hostCpuModel(): string {
  const cpuinfo = readFileSync("/proc/cpuinfo", "utf8");
  const name = /^model name\s*:\s*(.+)$/m.exec(cpuinfo)?.[1] ?? "unknown";
  const flags = /^flags\s*:\s*(.+)$/m.exec(cpuinfo)?.[1] ?? "";
  return `${name} ${createHash("sha256").update(flags).digest("hex").slice(0, 8)}`;
}
