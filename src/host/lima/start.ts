import type { Context } from "../../core/context.ts";
import { MvmError } from "../../core/errors.ts";
import { findProgram, run } from "../../core/process.ts";
import { LIMA_INSTANCE, type LimaStatus, type LimaVm, limaFailed, limaStatus } from "./limactl.ts";

export interface RunningLima {
  /** Path of limactl. */
  readonly limactl: string;
  readonly vm: LimaVm;
}

/**
 * Our VM, running: a stopped one is started, and one line says so.
 * @throws MvmError `LIMA_MISSING`, `LIMA_VM_MISSING`, `LIMA_VM_BROKEN`, `LIMA_VM_OUTDATED`, `NEWER_VERSION`, `LIMA_FAILED`
 */
export async function requireRunning(context: Context): Promise<RunningLima> {
  const { env, signal, report } = context;
  const status = await limaStatus(context);
  const vm = requireUsable(status);
  const limactl = findProgram("limactl", env)!;
  if (status.state === "running") return { limactl, vm };
  report({ kind: "note", text: "starting the Lima VM, which was stopped: limactl start mvmctl" });
  const started = await run(limactl, ["start", "--tty=false", LIMA_INSTANCE], { env, signal });
  // Somebody else may have started it meanwhile.
  if (started.exitCode === 0 || (await limaStatus(context)).state === "running") return { limactl, vm };
  throw limaFailed("start the VM", started.stderr);
}

/** What keeps a command from running in the VM, as an error that says how to mend it. */
export function requireUsable(status: LimaStatus): LimaVm {
  switch (status.state) {
    case "no-limactl":
      throw new MvmError(
        "LIMA_MISSING",
        "mvmctl runs its VMs in a Linux VM of Lima's here, and limactl was not found",
        { hint: "brew install lima && mvmctl setup" },
      );
    case "missing":
      throw new MvmError("LIMA_VM_MISSING", "there is no Lima VM for mvmctl yet", { hint: "mvmctl setup" });
    case "broken":
      throw new MvmError("LIMA_VM_BROKEN", "mvmctl's Lima VM is broken", {
        detail: status.detail,
        hint: "`mvmctl setup` stops it by force and starts it again",
      });
    case "outdated":
      throw new MvmError("LIMA_VM_OUTDATED", "mvmctl's Lima VM was made by another version or copy of mvmctl", {
        hint: "`mvmctl setup` brings it up to date; templates and instances in it stay",
      });
    case "newer":
      throw new MvmError("NEWER_VERSION", "mvmctl's Lima VM was made by a newer mvmctl", { hint: "update mvmctl" });
    case "running":
    case "stopped":
      return status.vm;
  }
}
