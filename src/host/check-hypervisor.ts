import { statSync } from "node:fs";
import type { Context } from "../core/context.ts";
import { messageOf } from "../core/errors.ts";
import { run } from "../core/process.ts";
import { findFirecracker, firecrackerVersion } from "../hypervisor/firecracker-binary.ts";
import { firecrackerFeatures } from "../hypervisor/firecracker-version.ts";
import { probeQemu, type QemuFacts } from "../hypervisor/qemu-probe.ts";
import { type Check, failed, guarded, ok, warning } from "./check.ts";

/** QEMU, KVM and Firecracker. */
export async function checkHypervisors(ctx: Context): Promise<Check[]> {
  let facts: QemuFacts | undefined;
  const qemu = await guarded("QEMU", async () => {
    facts = await probeQemu(ctx.paths.cache, ctx.env, ctx.signal);
    return [await checkMicrovm(facts, ctx.signal)];
  });
  const kvm = facts ? [kvmCheck(facts.withoutKvm)] : [];
  const firecracker = await guarded("Firecracker", () => checkFirecracker(ctx, facts?.identity.accelerator === "kvm"));
  return [...qemu, ...kvm, ...firecracker];
}

async function checkMicrovm({ binary, identity }: QemuFacts, signal: AbortSignal): Promise<Check> {
  const { stdout } = await run(binary, ["-M", "help"], { timeoutMs: 10_000, signal });
  const found = `${identity.version} (${binary})`;
  if (/^microvm\b/m.test(stdout)) return ok("QEMU", `${found}, with the machine microvm`);
  return failed("QEMU", `${found} has no machine microvm`, "apt-get install qemu-system-x86");
}

/** Without KVM everything works, slower. `without` is why it is not used. */
export function kvmCheck(without: string | undefined): Check {
  if (without === undefined) return ok("KVM", "a guest runs on it");
  const mend = /may not open/.test(without) ? `sudo usermod -aG ${groupOfKvm()} "$USER", and log in again` : undefined;
  // What mends it has a line of its own.
  const reason = mend ? without.replace(/ \([^)]*\)$/, "") : without;
  return warning("KVM", `${reason}; guests are emulated, which is slower`, mend);
}

function groupOfKvm(): string {
  const gid = statSync("/dev/kvm", { throwIfNoEntry: false })?.gid;
  return gid === undefined || gid === 0 ? "kvm" : `$(getent group ${gid} | cut -d: -f1)`;
}

async function checkFirecracker({ paths, env, signal }: Context, hasKvm: boolean): Promise<Check[]> {
  const wanted = env["MVM_FC_BIN"];
  const binary = findFirecracker(paths, env);
  if (!binary) {
    if (wanted) return [warning("Firecracker", `MVM_FC_BIN is ${wanted}, which is no program`, "unset MVM_FC_BIN")];
    if (!hasKvm) return [ok("Firecracker", "not installed; it needs a working KVM, so nothing is missed")];
    return [warning("Firecracker", "not installed; QEMU is used", "mvmctl setup --firecracker")];
  }
  return [firecrackerCheck(binary, await firecrackerVersion(binary, signal))];
}

export function firecrackerCheck(binary: string, version: string | undefined): Check {
  if (version === undefined) return warning("Firecracker", `${binary} does not say a version of Firecracker`);
  try {
    firecrackerFeatures(version);
    return ok("Firecracker", `${version} (${binary})`);
  } catch (error) {
    return warning("Firecracker", messageOf(error), "mvmctl setup --firecracker");
  }
}
