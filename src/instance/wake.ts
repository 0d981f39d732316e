import { setTimeout as delay } from "node:timers/promises";
import type { AgentClient } from "../guest/agent-client.ts";
import type { OpenOptions } from "../guest/agent-stream.ts";
import type { WakeRequest } from "../guest/agent-types.ts";
import { newIdentity } from "../guest/identity.ts";
import type { WokenGuest } from "../guest/wake-greeting.ts";
import type { VmRef } from "../hypervisor/driver.ts";
import { requireAlive } from "../hypervisor/require-alive.ts";
import type { Starting } from "./run-request.ts";
import { startVm } from "./start-vm.ts";
import type { Volume } from "./volumes.ts";

/** A greeting may wait for the hypervisor to load: a tenth of a second, and ten times that where many are started at once. */
const REPEAT_AFTER_MS = 1000;
/** A guest that runs answers at once; one that is emulated on a busy machine, after a while. */
const ANSWER_MS = 5000;
/** More than a greeting carries. */
const MAX_PACKED_BYTES = 100_000;
/** A guest that is not healthy by then is asked what is missing. */
const SOON_MS = 2000;

/** A guest that knows who it is, and whose services run on. */
export interface AwakeGuest extends AsyncDisposable {
  readonly vm: VmRef;
  /** Returns when every health check has passed. @throws MvmError `GUEST_UNHEALTHY`, or why the VM ended */
  healthy(): Promise<void>;
}

/** A VM that runs, and a connection to its agent. */
interface Contact {
  readonly vm: VmRef;
  readonly client: AgentClient;
}

/** What a connection is made with while the hypervisor still loads. */
type EarlyOptions = Pick<OpenOptions, "signal" | "repeatAfterMs" | "greetAfter">;

/**
 * Starts the VM as planned, puts the volumes into it and tells the guest who it is.
 * @throws MvmError as Driver.restore and boot, AgentClient.open and wakeByGreeting
 */
export async function startAndWake(starting: Starting, deadlineMs: number): Promise<AwakeGuest> {
  const { ctx, plan, driver, directory, request } = starting;
  if (plan.start === "booted") return await wakeByClient(starting, await boot(starting, deadlineMs), deadlineMs);
  const endpoint = driver.agentEndpoint(directory);
  const connect = (vm: VmRef, early: EarlyOptions = {}) => openClient(starting, vm, deadlineMs, early);
  if (endpoint.kind === "vsock") {
    // Nobody listens behind a vsock before the guest runs.
    const vm = await startVm(starting);
    return await wakeByClient(starting, { vm, client: await connect(vm) }, deadlineMs);
  }
  const { vm, reached } = await startAndReach(starting, async (vm, early) => {
    const { fitsGreeting, wakeByGreeting } = await import("../guest/wake-greeting.ts");
    const volumes = await packVolumes(request.volumes, ctx.signal);
    const wake = () => ({ ...identityOf(starting), ...(volumes?.length ? { volumes } : {}) });
    if (!volumes || !fitsGreeting(wake())) return await connect(vm, early);
    return await wakeByGreeting(endpoint.sockets, wake, { ...openOptions(starting, vm, deadlineMs), ...early });
  });
  if (!("settled" in reached)) return await wakeByClient(starting, { vm, client: reached }, deadlineMs);
  return {
    vm,
    healthy: async () => {
      if (await isHealthySoon(reached, Math.min(SOON_MS, deadlineMs - Date.now()), ctx.signal)) return;
      await reached[Symbol.asyncDispose]();
      // Also when the time is up: what is missing has to be asked.
      await using client = await openClient(starting, vm, Math.max(deadlineMs, Date.now() + ANSWER_MS), {});
      await waitUntilHealthy(starting, { vm, client }, deadlineMs);
    },
    [Symbol.asyncDispose]: () => reached[Symbol.asyncDispose](),
  };
}

/** Small directories go along with the greeting: config and secrets mostly are. Undefined if these are too large for that. */
async function packVolumes(
  volumes: readonly Volume[],
  signal: AbortSignal,
): Promise<WakeRequest["volumes"] | undefined> {
  const packed = [];
  for (const { hostPath, guestPath } of volumes) {
    const { packDirectory } = await import("../guest/files.ts");
    const archive = await packDirectory(hostPath, MAX_PACKED_BYTES, signal);
    if (!archive) return undefined;
    packed.push({ path: guestPath, tar: archive.toString("base64") });
  }
  return packed;
}

async function boot(starting: Starting, deadlineMs: number): Promise<Contact> {
  const { ctx, driver, directory } = starting;
  const { bootAndConnect } = await import("../guest/first-contact.ts");
  const onRetry = (text: string) => ctx.report({ kind: "note", text });
  return await bootAndConnect({
    boot: () => startVm(starting),
    driver,
    directory,
    deadlineMs,
    signal: ctx.signal,
    onRetry,
  });
}

/** Connects while the hypervisor loads: it takes as long, and a greeting waits in the agent's port for the guest to run. */
async function startAndReach<T extends AsyncDisposable>(
  starting: Starting,
  reach: (vm: VmRef, early: EarlyOptions) => Promise<T>,
): Promise<{ vm: VmRef; reached: T }> {
  const givenUp = new AbortController();
  const loaded = Promise.withResolvers<void>();
  // Whoever still connects does not wait for it yet.
  loaded.promise.catch(() => {});
  let reaching: Promise<T> | undefined;
  try {
    const vm = await startVm(starting, {
      onStarted: (vm) => {
        reaching = reach(vm, {
          signal: AbortSignal.any([starting.ctx.signal, givenUp.signal]),
          repeatAfterMs: REPEAT_AFTER_MS,
          greetAfter: loaded.promise,
        });
        reaching.catch(() => {});
      },
      onLoaded: loaded.resolve,
    });
    return { vm, reached: await reaching! };
  } catch (error) {
    givenUp.abort();
    loaded.reject(error);
    await reaching?.then((reached) => reached[Symbol.asyncDispose]()).catch(() => {});
    throw error;
  }
}

async function openClient(
  starting: Starting,
  vm: VmRef,
  deadlineMs: number,
  early: EarlyOptions,
): Promise<AgentClient> {
  const { AgentClient } = await import("../guest/agent-client.ts");
  const endpoint = starting.driver.agentEndpoint(starting.directory);
  return await AgentClient.open(endpoint, { ...openOptions(starting, vm, deadlineMs), ...early });
}

function openOptions({ ctx, driver }: Starting, vm: VmRef, deadlineMs: number): OpenOptions {
  return { deadlineMs, signal: ctx.signal, checkAlive: () => requireAlive(vm, driver) };
}

function identityOf({ record, revision, request }: Starting): WakeRequest {
  return newIdentity(record.name, revision.manifest.spec.role, request.env);
}

async function wakeByClient(starting: Starting, contact: Contact, deadlineMs: number): Promise<AwakeGuest> {
  const { ctx, request } = starting;
  const { vm, client } = contact;
  try {
    await deliver(client, request.volumes, ctx.signal);
    await client.wake(identityOf(starting), ctx.signal);
  } catch (error) {
    await client[Symbol.asyncDispose]();
    throw error;
  }
  return {
    vm,
    healthy: () => waitUntilHealthy(starting, contact, deadlineMs),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}

/** Copies directories into the guest before its services run on. */
async function deliver(client: AgentClient, volumes: readonly Volume[], signal: AbortSignal): Promise<void> {
  if (volumes.length === 0) return;
  const { putFiles } = await import("../guest/files.ts");
  for (const { hostPath, guestPath } of volumes) {
    await putFiles(client, hostPath, guestPath, undefined, { signal });
  }
}

async function isHealthySoon({ settled }: WokenGuest, patienceMs: number, signal: AbortSignal): Promise<boolean> {
  const over = new AbortController();
  const patience = delay(patienceMs, undefined, { signal: AbortSignal.any([signal, over.signal]) });
  patience.catch(() => {}); // it may be over before anybody waits for it
  try {
    return (await Promise.race([settled, patience])) === "healthy";
  } finally {
    over.abort();
  }
}

async function waitUntilHealthy({ ctx, driver }: Starting, { vm, client }: Contact, deadlineMs: number): Promise<void> {
  const { waitHealthy } = await import("../guest/health.ts");
  await waitHealthy(client, {
    deadlineMs,
    signal: ctx.signal,
    onProgress: (missing) => {
      requireAlive(vm, driver);
      ctx.report({ kind: "detail", text: missing });
    },
  });
}
