import { MvmError } from "../core/errors.ts";
import type { Driver, VmRef } from "../hypervisor/driver.ts";
import { requireAlive } from "../hypervisor/require-alive.ts";
import { AgentClient } from "./agent-client.ts";

/** A boot takes seconds. One that has not come up by then has most likely hung, and another one will not. */
const BOOT_PATIENCE_MS = 45_000;
/** A booting guest reads its ports when it opens them: repeating the greeting sooner would only pile up. */
const REPEAT_AFTER_MS = 5000;

export interface FirstContact {
  /** Starts the VM, from the beginning. */
  readonly boot: () => Promise<VmRef>;
  readonly driver: Driver;
  readonly directory: string;
  /** A time of Date.now(). */
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
  /** Told when a boot hung and is begun again. */
  readonly onRetry: (text: string) => void;
}

/**
 * Boots a VM and connects to its agent. An emulated kernel hangs in a boot once in a while, when the host takes the CPU away
 * at the wrong moment: such a boot is begun again, once.
 * @throws MvmError `AGENT_UNREACHABLE`, `VM_DIED`, or what `boot` throws
 */
export async function bootAndConnect(contact: FirstContact): Promise<{ vm: VmRef; client: AgentClient }> {
  const { driver, directory, deadlineMs, signal } = contact;
  const connect = (vm: VmRef, until: number) =>
    AgentClient.open(driver.agentEndpoint(directory), {
      deadlineMs: until,
      signal,
      repeatAfterMs: REPEAT_AFTER_MS,
      checkAlive: () => requireAlive(vm, driver),
    });
  const first = await contact.boot();
  try {
    return { vm: first, client: await connect(first, Math.min(deadlineMs, Date.now() + BOOT_PATIENCE_MS)) };
  } catch (error) {
    const hung = error instanceof MvmError && error.code === "AGENT_UNREACHABLE" && Date.now() < deadlineMs;
    if (!hung) throw error;
  }
  contact.onRetry("the guest did not come up in time and is booted again");
  await driver.kill(first);
  const second = await contact.boot();
  return { vm: second, client: await connect(second, deadlineMs) };
}
