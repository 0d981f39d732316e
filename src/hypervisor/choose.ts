import { MvmError } from "../core/errors.ts";
import type { Driver } from "./driver.ts";
import { HYPERVISORS } from "./driver.ts";
import { createQemuDriver } from "./qemu.ts";

export interface HypervisorHost {
  /** Where probes keep their answers. */
  readonly cacheDir: string;
  readonly env: NodeJS.ProcessEnv;
}

/**
 * The driver for this machine, or the one that was asked for by `--hypervisor` or MVM_HYPERVISOR.
 * @throws MvmError `UNKNOWN_HYPERVISOR`
 */
export function chooseDriver(host: HypervisorHost, wish?: string): Driver {
  const name = wish ?? host.env["MVM_HYPERVISOR"] ?? "qemu";
  if (name === "qemu") return createQemuDriver(host);
  throw new MvmError("UNKNOWN_HYPERVISOR", `'${name}' is not a hypervisor that this mvmctl drives`, {
    hint: `choose one of: ${HYPERVISORS.join(", ")}`,
  });
}
