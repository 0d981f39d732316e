import { MvmError } from "../core/errors.ts";
import type { Paths } from "../core/paths.ts";
import { type Driver, HYPERVISORS, type HypervisorName } from "./driver.ts";
import { createFirecrackerDriver } from "./firecracker.ts";
import { createQemuDriver } from "./qemu.ts";

/** What a driver has to know of the machine. */
export interface Place {
  readonly paths: Pick<Paths, "dataDir" | "cache">;
  readonly env: NodeJS.ProcessEnv;
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
