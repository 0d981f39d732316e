import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { Paths } from "../core/paths.ts";
import { type Driver, HYPERVISORS, type HypervisorName } from "./driver.ts";
import { createFirecrackerDriver } from "./firecracker.ts";
import { findFirecracker } from "./firecracker-binary.ts";
import { createQemuDriver } from "./qemu.ts";

interface Place {
  readonly paths: Pick<Paths, "dataDir" | "cache">;
  readonly env: NodeJS.ProcessEnv;
}
type Host = Place & Pick<Context, "signal" | "report">;

/** What the VM must be able to do, where hypervisors differ. */
export interface Needs {
  /** Published ports. */
  readonly ports?: boolean;
  /** A hypervisor that can be locked up further. */
  readonly jail?: boolean;
}

/** The driver of this name, whether or not it can be used here. @throws MvmError `UNKNOWN_HYPERVISOR` */
export function driverNamed(host: Place, name: string): Driver {
  switch (name as HypervisorName) {
    case "firecracker":
      return createFirecrackerDriver(host);
    case "qemu":
      return createQemuDriver({ cacheDir: host.paths.cache, env: host.env });
    default:
      throw new MvmError("UNKNOWN_HYPERVISOR", `'${name}' is not a hypervisor that this mvmctl drives`, {
        hint: `choose one of: ${HYPERVISORS.join(", ")}`,
      });
  }
}

/**
 * The driver that was asked for by `--hypervisor` or MVM_HYPERVISOR, or the best one that works here: Firecracker on KVM,
 * QEMU on KVM, QEMU emulating. What keeps a better one from being used is reported in a line.
 * @throws MvmError `UNKNOWN_HYPERVISOR`, or what the probe of the one asked for throws
 */
export async function chooseDriver(host: Host, wish?: string, needs: Needs = {}): Promise<Driver> {
  const name = wish ?? (host.env["MVM_HYPERVISOR"] || undefined);
  if (name !== undefined) return probed(host, driverNamed(host, name));
  if (needs.jail || host.env["MVM_FC_BIN"] || findFirecracker(host.paths, host.env)) {
    const driver = driverNamed(host, "firecracker");
    const why = await whyNot(driver, needs, host.signal);
    if (why === undefined) return driver;
    if (needs.jail) throw why;
    host.report({ kind: "note", text: `${why.message}; QEMU is used instead` });
    return driverNamed(host, "qemu");
  }
  return probed(host, driverNamed(host, "qemu"));
}

async function probed(host: Host, driver: Driver): Promise<Driver> {
  await driver.probe(host.signal);
  const drawback = await driver.drawback?.();
  if (drawback) host.report({ kind: "note", text: drawback });
  return driver;
}

async function whyNot(driver: Driver, needs: Needs, signal: AbortSignal): Promise<MvmError | undefined> {
  if (needs.ports && !driver.capabilities.userNetwork) {
    return new MvmError("PORTS_UNSUPPORTED", `${driver.name} is not used: published ports need a network of its own`);
  }
  try {
    await driver.probe(signal);
    return undefined;
  } catch (error) {
    if (error instanceof MvmError) return error;
    throw error;
  }
}
