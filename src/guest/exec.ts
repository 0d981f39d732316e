import type { Readable, Writable } from "node:stream";
import * as v from "valibot";
import { MvmError } from "../core/errors.ts";
import { type AgentClient, responseOf } from "./agent-client.ts";

/** Running a command in a guest: docs/agent-api.md, "exec". */

export interface ExecRequest {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly user?: string;
  readonly tty?: { readonly rows: number; readonly cols: number; readonly term: string };
}

export interface ExecStreams {
  /** Without one, the command reads an empty standard input. */
  readonly stdin?: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Called with a function that tells the guest the terminal's new size. */
  readonly onResize?: (resize: (size: { rows: number; cols: number }) => void) => void;
  readonly signal?: AbortSignal;
}

const MAX_PAYLOAD = 65_536;
const TO_GUEST = { start: 0, stdin: 1, endOfStdin: 2, resize: 3 } as const;
const FROM_GUEST = { started: 0, stdout: 1, stderr: 2, exit: 3, error: 4 } as const;

const ExitSchema = v.object({ code: v.optional(v.number()), signal: v.optional(v.number()) });
const ErrorSchema = v.object({ code: v.string(), message: v.string() });

/**
 * Runs a command and returns its exit code, 128 + the signal's number if it died of one.
 * @throws MvmError `COMMAND_NOT_FOUND`, `COMMAND_FAILED`, `AGENT_FAILED`
 */
export async function execInGuest(client: AgentClient, request: ExecRequest, streams: ExecStreams): Promise<number> {
  const stream = client.stream("POST", "/v1/exec");
  const send = (type: number, payload: Uint8Array | string) => stream.write(frame(type, payload));
  const stop = () => stream.destroy();
  streams.signal?.addEventListener("abort", stop, { once: true });
  send(TO_GUEST.start, JSON.stringify({ env: {}, cwd: "/", tty: null, ...request }));
  const detach = attachInput(streams.stdin, stream, send);
  streams.onResize?.((size) => void send(TO_GUEST.resize, JSON.stringify(size)));
  try {
    await responseOf(stream, "exec");
    for await (const [type, payload] of frames(stream as AsyncIterable<Buffer>)) {
      if (type === FROM_GUEST.stdout) await write(streams.stdout, payload, streams.signal);
      else if (type === FROM_GUEST.stderr) await write(streams.stderr, payload, streams.signal);
      else if (type === FROM_GUEST.exit) return exitCode(payload);
      else if (type === FROM_GUEST.error) throw commandFailed(request.argv, payload);
    }
    throw new MvmError("AGENT_FAILED", "the connection to the guest ended before the command did", {
      hint: "`mvmctl ls` shows whether the instance still runs",
    });
  } finally {
    streams.signal?.removeEventListener("abort", stop);
    detach();
    stream.destroy();
  }
}

function frame(type: number, payload: Uint8Array | string): Buffer {
  const body = typeof payload === "string" ? Buffer.from(payload) : payload;
  const head = Buffer.alloc(5);
  head.writeUInt8(type, 0);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** Sends standard input on, no faster than the guest takes it. Returns what undoes it. */
function attachInput(
  stdin: Readable | undefined,
  stream: Writable,
  send: (type: number, payload: Uint8Array | string) => boolean,
): () => void {
  if (!stdin) {
    send(TO_GUEST.endOfStdin, "");
    return () => {};
  }
  const onData = (chunk: Buffer) => {
    let free = true;
    for (let at = 0; at < chunk.length; at += MAX_PAYLOAD)
      free = send(TO_GUEST.stdin, chunk.subarray(at, at + MAX_PAYLOAD));
    if (free) return;
    stdin.pause();
    stream.once("drain", () => stdin.resume());
  };
  const onEnd = () => send(TO_GUEST.endOfStdin, "");
  stdin.on("data", onData).once("end", onEnd);
  return () => {
    stdin.removeListener("data", onData);
    stdin.removeListener("end", onEnd);
    stdin.pause();
  };
}

async function* frames(stream: AsyncIterable<Buffer>): AsyncGenerator<[type: number, payload: Buffer]> {
  let buffer: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    buffer = buffer.length === 0 ? chunk : Buffer.concat([buffer, chunk]);
    while (buffer.length >= 5) {
      const length = buffer.readUInt32BE(1);
      if (length > MAX_PAYLOAD) throw new MvmError("AGENT_FAILED", "the guest's agent sent a frame that is too long");
      if (buffer.length < 5 + length) break;
      yield [buffer.readUInt8(0), buffer.subarray(5, 5 + length)];
      buffer = buffer.subarray(5 + length);
    }
  }
}

/** No faster than it is taken. One whose reader is gone (`| head`) takes nothing any more, and never says so with `drain`. */
function write(target: Writable, data: Buffer, signal?: AbortSignal): Promise<void> | void {
  if (target.write(data) || target.destroyed || signal?.aborted) return;
  return new Promise((resolve) => {
    const done = () => {
      target.removeListener("drain", done).removeListener("close", done);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    target.once("drain", done).once("close", done);
    signal?.addEventListener("abort", done, { once: true });
  });
}

function exitCode(payload: Buffer): number {
  const { code, signal } = v.parse(ExitSchema, JSON.parse(payload.toString("utf8")));
  return code ?? 128 + (signal ?? 0);
}

function commandFailed(argv: readonly string[], payload: Buffer): MvmError {
  const { code, message } = v.parse(ErrorSchema, JSON.parse(payload.toString("utf8")));
  const name = argv[0] ?? "";
  if (code === "NOT_FOUND")
    return new MvmError("COMMAND_NOT_FOUND", `'${name}' was not found in the guest`, {
      hint: "only what the image holds can be run: add it to `packages` in flake.nix",
    });
  return new MvmError("COMMAND_FAILED", `'${name}' could not be started in the guest: ${message}`);
}
