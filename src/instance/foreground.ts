import { setTimeout as delay } from "node:timers/promises";
import type { Context } from "../core/context.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import { readTextIfThere } from "../core/files.ts";
import { acquireLock } from "../core/locks.ts";
import { isAlive } from "../core/process-identity.ts";
import { readLogs, renderLogLine } from "../guest/logs.ts";
import { connectAgent, type LiveInstance, requireLive } from "./connect.ts";
import { instanceStatus, writeRecord } from "./records.ts";
import { runInstance } from "./run.ts";
import type { RunOutcome, RunRequest } from "./run-request.ts";
import { stopInstance } from "./stop.ts";
import { saysShutDown } from "./why-dead.ts";

export interface ForegroundOptions {
  /** Told once the instance runs. */
  readonly onStarted: (outcome: RunOutcome) => void;
  /** Takes what the guest's services write, a line at a time. */
  readonly write: (text: string) => void;
  /** Milliseconds that the guest gets to shut down before it is ended by force. */
  readonly stopTimeoutMs: number;
}

/** How the instance ended: told to by our signal or by another command, or by itself in order. */
export type ForegroundEnd = "stopped" | "killed" | "shut-down";

/** Whether the VM still runs is a read of one small file. */
const LOOK_EVERY_MS = 100;
/** A connection for logs that broke is tried again after that. */
const RECONNECT_MS = 1000;
/** `stop` writes its record within moments of the VM's end. */
const RECORD_TIMEOUT_MS = 30_000;

/**
 * Starts an instance and stays with it: passes on what its services write until it ends, and ends it, as `stop` does, when
 * the context's signal says so. The VM dies with this process, however that dies.
 * @throws MvmError as runInstance; `VM_DIED` when the VM ended without having shut down
 */
export async function runInForeground(
  ctx: Context,
  request: RunRequest,
  options: ForegroundOptions,
): Promise<ForegroundEnd> {
  const outcome = await runInstance(ctx, { ...request, dieWithParent: true });
  options.onStarted(outcome);
  const live = requireLive(ctx, outcome.name, ["running", "paused"]);
  const over = new AbortController();
  // The logs go on while the guest shuts down, after our own signal.
  const logs = followLogs({ ...ctx, signal: over.signal }, live, options.write);
  try {
    while (!ctx.signal.aborted && isAlive(live.vm.process)) await delay(LOOK_EVERY_MS);
    if (!ctx.signal.aborted) return await endedByItself(ctx, live);
    const calm = { ...ctx, signal: over.signal };
    const { how } = await stopInstance(calm, outcome.name, { timeoutMs: options.stopTimeoutMs });
    return how === "killed" ? "killed" : "stopped";
  } finally {
    over.abort();
    await logs;
  }
}

/** Passes on logs until the VM ends; a connection that breaks before that is made anew. */
async function followLogs(ctx: Context, live: LiveInstance, write: (text: string) => void): Promise<void> {
  const take = (line: Parameters<typeof renderLogLine>[0]) => write(renderLogLine(line));
  for (let first = true; !ctx.signal.aborted && isAlive(live.vm.process); first = false) {
    try {
      await using client = await connectAgent(ctx, live);
      await readLogs(client, { follow: true, ...(first ? {} : { tail: 0 }) }, take, ctx.signal);
    } catch (error) {
      if (ctx.signal.aborted || !isAlive(live.vm.process)) return;
      if (first && error instanceof MvmError && error.code === "AGENT_UNREACHABLE") {
        return ctx.report({ kind: "note", text: `there are no logs of services: ${error.message}` });
      }
      ctx.report({ kind: "note", text: `the logs broke off, and are taken up again: ${messageOf(error)}` });
    }
    await delay(RECONNECT_MS, undefined, { signal: ctx.signal }).catch(() => {});
  }
}

/** Another command may have ended it; a guest that shut itself down is marked as `stop` would; any other VM has died. */
async function endedByItself(ctx: Context, { name, record, vm, driver }: LiveInstance): Promise<ForegroundEnd> {
  await using _lock = await acquireLock(vm.directory, { purpose: `ending ${name}`, timeoutMs: RECORD_TIMEOUT_MS });
  const status = instanceStatus(ctx.paths, name);
  if (status === undefined || status.state === "stopped") return "stopped";
  const { console } = driver.logFiles(vm.directory);
  if (!saysShutDown(readTextIfThere(console) ?? "")) throw driver.explainEnd(vm.directory);
  const { process: _, ...ended } = record;
  writeRecord(vm.directory, { ...ended, state: "stopped" });
  return "shut-down";
}
