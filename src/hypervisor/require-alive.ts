import { isAlive } from "../core/process-identity.ts";
import type { Driver, VmRef } from "./driver.ts";

/** For whoever waits for a VM: it may have ended by itself. @throws MvmError with why it ended */
export function requireAlive(vm: VmRef, driver: Pick<Driver, "explainEnd">): void {
  if (!isAlive(vm.process)) throw driver.explainEnd(vm.directory);
}
