import { renameSync, writeFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { dirname, join } from "node:path";
import type { Context } from "../../core/context.ts";
import { fileError } from "../../core/errors.ts";
import { ensureDirectory } from "../../core/files.ts";
import { findProgram, run } from "../../core/process.ts";
import { LIMITS, MiB, parseWhole } from "../../core/sizes.ts";
import { LIMA_INSTANCE, type LimaStatus, limaDirectory, limaFailed, limaStatus, packageDirectory } from "./limactl.ts";
import { requireUsable } from "./start.ts";
import { type LimaMachine, limaTemplate, nestedVirtualization } from "./template.ts";

export interface LimaSetupOptions {
  /** `--lima-cpus`; without it, what the VM has, or four at most. */
  readonly cpus?: number | undefined;
  /** `--lima-mem`, MiB; without it, what the VM has, or half of the host's, 8 GiB at most. */
  readonly memMiB?: number | undefined;
  /** Only says what it would do. */
  readonly dryRun?: boolean;
}

/** One thing that set-up does, in words and as data. */
export interface LimaStep {
  readonly title: string;
  readonly action:
    | { readonly kind: "write"; readonly path: string; readonly text: string }
    | { readonly kind: "limactl"; readonly args: readonly string[] };
}

/** Nix and a VM or two need that much. */
const MIN_MEM_MIB = 2048;

/** `--lima-cpus`. @throws MvmError `INVALID_SIZE` */
export const parseLimaCpus = (text: string): number => parseWhole("--lima-cpus", text, "a number of CPUs", LIMITS.cpus);
/** `--lima-mem`, MiB. @throws MvmError `INVALID_SIZE` */
export const parseLimaMemMiB = (text: string): number =>
  parseWhole("--lima-mem", text, "MiB", { min: MIN_MEM_MIB, max: LIMITS.memMiB.max });

const DEFAULT_CPUS = 4;
const DEFAULT_MEM_MIB = 8192;

/**
 * Creates our VM, or brings it up to date and starts it; does nothing where all is as it should be. Returns the steps,
 * which are done unless `dryRun`.
 * @throws MvmError `LIMA_MISSING`, `NEWER_VERSION`, `LIMA_FAILED`
 */
export async function limaSetup(context: Context, options: LimaSetupOptions = {}): Promise<LimaStep[]> {
  const { env, signal, report } = context;
  const status = await limaStatus(context);
  const steps = limaSetupSteps(status, await machineFor(context, status, options), limaDirectory(env));
  if (options.dryRun) return steps;
  const limactl = findProgram("limactl", env)!;
  for (const { title, action } of steps) {
    report({ kind: "step", text: title });
    if (action.kind === "write") {
      writeDescription(action.path, action.text);
      continue;
    }
    const onStderrLine = (line: string) => report({ kind: "detail", text: messageIn(line) });
    const result = await run(limactl, action.args, { env, signal, onStderrLine });
    if (result.exitCode !== 0) throw limaFailed(`do this: limactl ${action.args.join(" ")}`, result.stderr);
  }
  return steps;
}

/**
 * What has to be done to get from what is there to a running VM of this layout and size. Pure. The disk stays, and
 * with it templates and instances: Lima runs the provisioning script again at every start.
 * @throws MvmError `LIMA_MISSING`, `NEWER_VERSION`
 */
export function limaSetupSteps(status: LimaStatus, machine: LimaMachine, directory: string): LimaStep[] {
  if (status.state === "no-limactl" || status.state === "newer") requireUsable(status);
  const text = limaTemplate(machine);
  const start = limactlStep("start the Lima VM; the first time this takes some minutes", "start", "--tty=false");
  if (!("vm" in status)) {
    const path = join(directory, "mvmctl.yaml");
    const size = `${machine.cpus} CPUs, ${machine.memMiB} MiB`;
    return [
      { title: `write the VM's description (${path})`, action: { kind: "write", path, text } },
      {
        title: `create a Lima VM for mvmctl: Debian 12, ${size}; downloads some 500 MiB`,
        action: { kind: "limactl", args: ["create", "--tty=false", `--name=${LIMA_INSTANCE}`, path] },
      },
      start,
    ];
  }
  const { vm, state } = status;
  const sameSize = vm.cpus === machine.cpus && vm.memMiB === machine.memMiB;
  if (sameSize && state === "running") return [];
  if (sameSize && state === "stopped") return [start];
  const running = state === "running" || (state === "outdated" && status.running);
  const stop = state === "broken" ? ["stop", "--force"] : running ? ["stop"] : undefined;
  const path = join(vm.directory, "lima.yaml");
  return [
    ...(stop ? [limactlStep("stop the Lima VM, and the instances in it", ...stop)] : []),
    { title: `write the VM's new description (${path})`, action: { kind: "write", path, text } },
    start,
  ];
}

/** With a rename of its own: names of staging files need Linux's /proc, and this runs on the Mac. */
function writeDescription(path: string, text: string): void {
  ensureDirectory(dirname(path));
  try {
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
  } catch (error) {
    throw fileError(error, path, "write");
  }
}

function limactlStep(title: string, ...args: readonly string[]): LimaStep {
  return { title, action: { kind: "limactl", args: [...args, LIMA_INSTANCE] } };
}

async function machineFor(context: Context, status: LimaStatus, options: LimaSetupOptions): Promise<LimaMachine> {
  const vm = "vm" in status && status.vm.layout > 0 ? status.vm : undefined;
  const mac = process.platform === "darwin";
  const chip = mac ? await ask(context, "sysctl", "-n", "machdep.cpu.brand_string") : "";
  // Node.js for Intel runs on Apple's chips too, and believes to be on Intel's.
  const arm = process.arch === "arm64" || chip.startsWith("Apple");
  return {
    cpus: options.cpus ?? vm?.cpus ?? Math.min(availableParallelism(), DEFAULT_CPUS),
    memMiB: options.memMiB ?? vm?.memMiB ?? Math.min(Math.floor(totalmem() / MiB / 2), DEFAULT_MEM_MIB),
    arch: arm ? "aarch64" : "x86_64",
    vmType: mac ? "vz" : "qemu",
    nested: mac && nestedVirtualization(chip, await ask(context, "sw_vers", "-productVersion")),
    packageDirectory: packageDirectory(),
  };
}

async function ask({ env, signal }: Context, command: string, ...args: readonly string[]): Promise<string> {
  return (await run(command, args, { env, signal, timeoutMs: 10_000 })).stdout.trim();
}

/** Lima logs `time=… level=info msg="…"`. */
function messageIn(line: string): string {
  const quoted = /msg=("(?:[^"\\]|\\.)*")/.exec(line)?.[1];
  return quoted ? String(JSON.parse(quoted)) : line;
}
