import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { Driver } from "./driver.ts";
import type { Place } from "./drivers.ts";
import { findFirecracker } from "./firecracker-binary.ts";
import { createQemuDriver } from "./qemu.ts";

type Host = Place & Pick<Context, "signal" | "report">;

/** What the VM must be able to do, where hypervisors differ. */
export interface Needs {
  /** A hypervisor that can be locked up further. */
  readonly jail?: boolean;
}

/**
 * The driver that was asked for by `--hypervisor` or MVM_HYPERVISOR, or the best one that works here: Firecracker on KVM,
 * QEMU on KVM, QEMU emulating. What keeps a better one from being used is reported in a line.
 * @throws MvmError `UNKNOWN_HYPERVISOR`, or what the probe of the one asked for throws
 */
export async function chooseDriver(host: Host, wish?: string, needs: Needs = {}): Promise<Driver> {
  const name = wish ?? (host.env["MVM_HYPERVISOR"] || undefined);
  if (name !== undefined) return probed(host, await load(host, name));
  if (needs.jail || host.env["MVM_FC_BIN"] || findFirecracker(host.paths, host.env)) {
    const driver = await load(host, "firecracker");
    const why = await whyNot(driver, host.signal);
    if (why === undefined) return driver;
    if (needs.jail) throw why;
    host.report({ kind: "note", text: `${why.message}; QEMU is used instead` });
    return await load(host, "qemu");
  }
  return probed(host, await load(host, "qemu"));
}

/** Each driver is loaded when it is used: `run` waits for what it loads before it starts a VM. */
async function load(host: Host, name: string): Promise<Driver> {
  if (name === "qemu") return createQemuDriver({ cacheDir: host.paths.cache, env: host.env });
  const { driverNamed } = await import("./drivers.ts");
  return driverNamed(host, name);
}

async function probed(host: Host, driver: Driver): Promise<Driver> {
  await driver.probe(host.signal);
  const drawback = await driver.drawback?.();
  if (drawback) host.report({ kind: "note", text: drawback });
  return driver;
}

async function whyNot(driver: Driver, signal: AbortSignal): Promise<MvmError | undefined> {
  try {
    await driver.probe(signal);
    return undefined;
  } catch (error) {
    if (error instanceof MvmError) return error;
    throw error;
  }
}
