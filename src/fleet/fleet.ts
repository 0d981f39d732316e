import { MvmError } from "../core/errors.ts";
import { parseInstanceName, type TemplateName } from "../core/names.ts";
import type { PortForward } from "../hypervisor/driver.ts";
import type { VmSizes } from "../template/vm-config.ts";

/** Equal VMs of one template, to be run by an engine that starts programs and looks after them. */
export interface Fleet {
  readonly template: TemplateName;
  /** How many, at least 1. */
  readonly count: number;
  /** mvmctl on the machines of the fleet; an absolute path. */
  readonly program: string;
  /** The data directory there. */
  readonly dataDir: string;
  /** For the engines that place VMs by size. */
  readonly sizes: Pick<VmSizes, "cpus" | "memMiB">;
  /** The first VM's; what the others get, the engine says. */
  readonly ports: readonly PortForward[];
  /** A container image with mvmctl and QEMU in it, for Kubernetes. */
  readonly image: string;
  /** Whether VMs get /dev/kvm, for Kubernetes. */
  readonly kvm: boolean;
  /** Whether VMs have networks of their own. */
  readonly isolate: boolean;
}

export interface FleetFile {
  /** Relative to the output directory. */
  readonly path: string;
  readonly text: string;
}

/** The guest gets 15 s to shut down (`run --stop-timeout`), and mvmctl as much to end what has not. */
export const STOP_SECONDS = 30;
/** A template's first pull takes as long as its gigabytes take. */
export const PULL_SECONDS = 1800;
/** What QEMU and mvmctl take beside the guest's memory. */
export const OVERHEAD_MIB = 256;

/** Words of the command line that an instance is run with. */
export function runArguments({ template, isolate }: Fleet, name: string): string[] {
  return ["run", "--template", template, "--name", name, "--foreground", ...(isolate ? ["--isolate"] : [])];
}

/** These reach configuration languages with quotes, variables and comments of their own: nothing that means something there. */
const PLAIN_PATH = /^\/[A-Za-z0-9_][A-Za-z0-9._/@+-]*$/;
const PLAIN_IMAGE = /^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$/;
const MAX_COUNT = 10_000;

/** @throws MvmError `INVALID_SETTINGS`, `INVALID_NAME` for a fleet whose last instance would have too long a name */
export function checkFleet(fleet: Fleet): void {
  const { template, count, program, dataDir, image } = fleet;
  if (!Number.isInteger(count) || count < 1 || count > MAX_COUNT)
    throw invalid(`--count ${count} is not a number from 1 to ${MAX_COUNT}`, "write --count 3");
  for (const path of [program, dataDir]) {
    if (!PLAIN_PATH.test(path))
      throw invalid(
        `'${path.slice(0, 80)}' is not an absolute path of plain characters`,
        "write --program /usr/local/bin/mvmctl",
      );
  }
  if (!PLAIN_IMAGE.test(image))
    throw invalid(`'${image.slice(0, 80)}' is not a container image`, "write --image registry.example/mvmctl:0.1");
  const unknown = fleet.ports.find(({ hostPort }) => hostPort === 0);
  if (unknown) throw invalid("a fleet's host ports have to be known", `write -p 8080:${unknown.guestPort}`);
  const last = fleet.ports.find(({ hostPort }) => hostPort + count - 1 > 65_535);
  if (last) throw invalid(`port ${last.hostPort} plus ${count - 1} is more than 65535`, "begin with a lower port");
  parseInstanceName(`${template}-${count}`);
}

export function invalid(message: string, hint: string): MvmError {
  return new MvmError("INVALID_SETTINGS", message, { hint });
}
