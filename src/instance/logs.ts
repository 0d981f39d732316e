import { closeSync, openSync, readSync, watch } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { isErrno, MvmError } from "../core/errors.ts";
import type { InstanceName } from "../core/names.ts";
import { readLogs, renderLogLine, SERVICES_LOG } from "../guest/logs.ts";
import { connectAgent, driverOf, requireLive } from "./connect.ts";
import { instanceStatus, requireInstance } from "./records.ts";

/** How soon whoever follows a log hears that there will be no more of it. */
const END_POLL_MS = 500;

export interface LogsRequest {
  /** What services wrote; what the guest wrote to its console; what the hypervisor said. */
  readonly source: "services" | "console" | "hypervisor";
  /** One service only. */
  readonly service?: string;
  readonly follow: boolean;
  /** The last so many lines. */
  readonly tail?: number;
  readonly write: (text: string) => void;
}

/**
 * Shows an instance's logs. Those of services are asked of the guest while it runs; once it was stopped, what was kept
 * then is shown; where it died, its console says the most.
 * @throws MvmError `INSTANCE_NOT_FOUND`, `NO_LOGS`
 */
export async function instanceLogs(ctx: Context, name: InstanceName, request: LogsRequest): Promise<void> {
  const status = requireInstance(ctx.paths, name);
  const directory = ctx.paths.instance(name);
  if (request.source === "services" && status.state === "running") {
    await using client = await connectAgent(ctx, requireLive(ctx, name));
    const { service, tail, follow } = request;
    const wish = { follow, ...(service === undefined ? {} : { service }), ...(tail === undefined ? {} : { tail }) };
    await readLogs(
      client,
      wish,
      (line) => request.write(service === undefined ? renderLogLine(line) : `${line.text}\n`),
      ctx.signal,
    );
    return;
  }
  if (status.state === "broken") throw new MvmError("CORRUPT_FILE", status.reason);
  // What services wrote is in the guest, which answers nothing now; the other logs are files.
  if (request.source === "services" && status.state === "paused") requireLive(ctx, name);
  const files = driverOf(ctx, status.record).logFiles(directory);
  const path = request.source === "services" ? join(directory, SERVICES_LOG) : files[request.source];
  await showFile(ctx, path, name, request);
}

async function showFile(ctx: Context, path: string, name: InstanceName, request: LogsRequest): Promise<void> {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if (!isErrno(error, "ENOENT")) throw error;
    const hint =
      request.source === "services"
        ? `\`mvmctl logs ${name} --console\` shows what the guest wrote to its console`
        : "";
    throw new MvmError("NO_LOGS", `instance '${name}' left no such log`, hint ? { hint } : {});
  }
  try {
    const text = readRest(fd);
    request.write(request.tail === undefined ? text : lastOf(text, request.tail));
    const isOver = () => ["stopped", "dead"].includes(instanceStatus(ctx.paths, name)?.state ?? "stopped");
    if (request.follow) await follow(ctx.signal, path, isOver, () => request.write(readRest(fd)));
  } finally {
    closeSync(fd);
  }
}

/** Reads from where the last read ended. */
function readRest(fd: number): string {
  const chunks: Buffer[] = [];
  for (;;) {
    const chunk = Buffer.alloc(65_536);
    const bytes = readSync(fd, chunk, 0, chunk.length, null);
    if (bytes === 0) return Buffer.concat(chunks).toString("utf8");
    chunks.push(chunk.subarray(0, bytes));
  }
}

function lastOf(text: string, lines: number): string {
  const all = text.split("\n");
  const open = all.at(-1) === "" ? 1 : 0;
  return all.slice(Math.max(0, all.length - lines - open)).join("\n");
}

/** Calls `onChange` whenever the file grows, until the instance is over, or the signal. */
function follow(signal: AbortSignal, path: string, isOver: () => boolean, onChange: () => void): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watch(path, onChange);
    // What ends an instance need not change its logs.
    const timer = setInterval(() => isOver() && watcher.close(), END_POLL_MS);
    watcher.on("close", () => {
      clearInterval(timer);
      onChange();
      resolve();
    });
    if (isOver() || signal.aborted) watcher.close();
    signal.addEventListener("abort", () => watcher.close(), { once: true });
  });
}
