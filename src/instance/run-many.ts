import { availableParallelism } from "node:os";
import type { Context, Progress } from "../core/context.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import { type InstanceName, parseInstanceName } from "../core/names.ts";
import { forEachParallel } from "../core/parallel.ts";
import type { PortForward } from "../hypervisor/driver.ts";
import { keptDataDiskMiB } from "./data-disk.ts";
import { madeUpName } from "./made-up-name.ts";
import { choosePorts, isOpen } from "./ports.ts";
import { runInstance } from "./run.ts";
import type { RunOutcome, RunRequest } from "./run-request.ts";
import { removeInstance, stopInstance } from "./stop.ts";

/** More than there are CPUs in small machines: while one start waits for its guest, another one has something to do. */
const LEAST_PARALLEL = 4;
/** Whoever presses Ctrl+C gets an answer within two seconds, so a guest with a disk gets one to write what it has. */
const UNDO_STOP_MS = 1000;

export interface RunManyOptions {
  /** How many instances. */
  readonly count: number;
  /** How many of them start at a time: as many as there are CPUs if not given, and at least 4. */
  readonly parallel?: number;
}

/**
 * Starts several instances of one template, `NAME-1` to `NAME-COUNT`: all or none. When one can't be started, those that were
 * are removed again, but the data disks that were there before.
 * @returns in the order of their numbers
 * @throws MvmError `INVALID_PORT` for a fixed host port, which only one of them could have; `INVALID_NAME`; and as runInstance
 */
export async function runInstances(
  ctx: Context,
  asked: RunRequest,
  { count, parallel = Math.max(LEAST_PARALLEL, availableParallelism()) }: RunManyOptions,
): Promise<RunOutcome[]> {
  const base = asked.name ?? madeUpName();
  const names = Array.from({ length: count }, (_, index) => parseInstanceName(`${base}-${index + 1}`));
  const ports = await portsForEach(asked.ports, count);
  const outcomes: RunOutcome[] = [];
  const begun: { name: InstanceName; hadDisk: boolean }[] = [];
  const failure = new AbortController();
  const report = once(ctx.report);
  const shared = { ...ctx, signal: AbortSignal.any([ctx.signal, failure.signal]), report };
  ctx.report({ kind: "step", text: `Starting ${count} instances, ${Math.min(count, parallel)} at a time` });
  const startOne = async (index: number) => {
    const name = names[index]!;
    const hadDisk = keptDataDiskMiB(ctx.paths.instance(name)) !== undefined;
    try {
      outcomes[index] = await runInstance(shared, { ...asked, name, ports: ports[index]! });
    } catch (error) {
      // The first to fail says why; the others are told to give up.
      if (!failure.signal.aborted) failure.abort(ofOne(error, name));
      throw error;
    }
    begun.push({ name, hadDisk });
    ctx.report({ kind: "detail", text: `${begun.length} of ${count}` });
  };
  try {
    await forEachParallel(names.keys(), parallel, startOne);
  } catch {
    await Promise.all(begun.map((instance) => undo(ctx, instance)));
    ctx.signal.throwIfAborted();
    throw failure.signal.reason;
  }
  return outcomes;
}

/** Free host ports for each instance, all chosen at once, so that no two get the same. @throws MvmError `INVALID_PORT` */
async function portsForEach(ports: readonly PortForward[], count: number): Promise<PortForward[][]> {
  const fixed = ports.find((port) => !isOpen(port));
  if (fixed && count > 1) {
    throw new MvmError("INVALID_PORT", `the host port ${fixed.hostPort} can't be that of ${count} instances`, {
      hint: `leave the host port out, and each gets a free one: -p ${fixed.guestPort}`,
    });
  }
  const chosen = await choosePorts(Array.from({ length: count }, () => ports).flat());
  return Array.from({ length: count }, (_, index) => chosen.slice(index * ports.length, (index + 1) * ports.length));
}

/** All that is said of one instance is said of the next one, too: notes are passed on once, and steps not at all. */
function once(report: Context["report"]): Context["report"] {
  const said = new Set<string>();
  return (progress: Progress) => {
    if (progress.kind !== "note" || said.has(progress.text)) return;
    said.add(progress.text);
    report(progress);
  };
}

function ofOne(error: unknown, name: InstanceName): unknown {
  if (!(error instanceof MvmError)) return error;
  return new MvmError(error.code, `${name} could not be started, and so none is: ${error.message}`, {
    cause: error,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error.detail === undefined ? {} : { detail: error.detail }),
  });
}

async function undo(ctx: Context, { name, hadDisk }: { name: InstanceName; hadDisk: boolean }): Promise<void> {
  // Also where it was Ctrl+C that ended it.
  const unhurried = { ...ctx, signal: new AbortController().signal };
  try {
    if (hadDisk) await stopInstance(unhurried, name, { timeoutMs: UNDO_STOP_MS });
    else await removeInstance(unhurried, name, { force: true });
  } catch (error) {
    ctx.report({ kind: "note", text: `could not end ${name} again: ${messageOf(error)}` });
  }
}
