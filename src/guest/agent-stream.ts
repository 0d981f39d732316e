import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { MvmError } from "../core/errors.ts";
import { acquireLock, type Lock, tryLock } from "../core/locks.ts";
import { randomBytes } from "../core/random.ts";
import { connectUnix } from "../core/unix-socket.ts";
import type { AgentEndpoint } from "../hypervisor/driver.ts";
import { ENDING_MS } from "../hypervisor/vm-process.ts";

/**
 * Opens the byte stream to a guest's agent: docs/agent-api.md, "The byte stream".
 */
export interface AgentStream extends AsyncDisposable {
  readonly socket: Socket;
  /** The last line of the answer to its greeting. */
  readonly answer: string;
}

export interface OpenOptions {
  /** A time of Date.now(). */
  deadlineMs: number;
  signal?: AbortSignal | undefined;
  /** Throws when the VM has ended, so that nobody waits for a dead one. */
  checkAlive?: (() => void) | undefined;
  /** How long until an unanswered handshake is repeated. A booting guest is waited for; a running one answers at once. */
  repeatAfterMs?: number;
  /** The handshake waits for this: connecting need not, and what a greeting says may have to be of the last moment. */
  greetAfter?: Promise<void>;
}

/** Longer than any frame a guest accepts (16,384 and its header of 9): ends whatever frame a client that died had begun. */
const FILLER = Buffer.alloc(16_384 + 9, 0xff);
const DEFAULT_REPEAT_MS = 200;
const MAX_REPEAT_MS = 5000;
/** A handshake's answer follows at most what an HTTP/2 window lets the guest have sent before. */
const MAX_DISCARDED_BYTES = 16 * 1024 * 1024;

/**
 * @throws MvmError `AGENT_UNREACHABLE` when nothing answered by the deadline, `AGENT_BUSY` when all ports are taken
 */
export async function openAgentStream(endpoint: AgentEndpoint, options: OpenOptions): Promise<AgentStream> {
  if (endpoint.kind === "vsock") return openVsock(endpoint, options);
  return openPort(endpoint.sockets, connectGreeting(newNonce()), options);
}

/** What is sent first, and what ends with the answer to it. */
export interface Greeting {
  readonly request: () => string;
  /** The answer's last line, wherever in the stream it comes. */
  readonly answer: RegExp;
  /** Whether repeating it can help: on a port that others used before, and not on a connection of our own. */
  readonly repeatable: boolean;
}

/** What makes an answer one to this greeting, and not to that of an earlier client. */
export function newNonce(): string {
  return randomBytes(12).toString("hex");
}

function connectGreeting(nonce: string): Greeting {
  return { request: () => `CONNECT 52 ${nonce}\n`, answer: new RegExp(`OK ${nonce}\n`), repeatable: true };
}

/** Firecracker's own handshake (docs/vsock.md in its repository): it answers with a port number of its choice. */
function vsockGreeting(port: number): Greeting {
  return { request: () => `CONNECT ${port}\n`, answer: /^OK \d+\n/, repeatable: false };
}

/** Opens the first port that nobody uses with a greeting. @throws as openAgentStream */
export async function openPort(
  sockets: readonly string[],
  greeting: Greeting,
  options: OpenOptions,
): Promise<AgentStream> {
  const { lock, socket } = await lockFreePort(sockets, options);
  return openWithHandshake(socket, greeting, options, lock);
}

/** How long until a vsock connection that was closed is opened again: a booting guest begins to listen at any moment. */
const VSOCK_RETRY_MS = 20;

/**
 * A connection to a guest that does not listen yet is closed, and one that meets a guest's reset of its vsock after a
 * restore may stay silent: each is tried again, on a new connection.
 */
async function openVsock(endpoint: { socket: string; port: number }, options: OpenOptions): Promise<AgentStream> {
  for (let patienceMs = options.repeatAfterMs ?? DEFAULT_REPEAT_MS; ; ) {
    const started = Date.now();
    const deadlineMs = Math.min(options.deadlineMs, started + patienceMs);
    try {
      return await openWithHandshake(endpoint.socket, vsockGreeting(endpoint.port), { ...options, deadlineMs });
    } catch (error) {
      const worthARetry = error instanceof MvmError && ["AGENT_UNREACHABLE", "UNREACHABLE"].includes(error.code);
      if (!worthARetry || Date.now() >= options.deadlineMs) throw error;
    }
    if (Date.now() - started >= patienceMs) patienceMs = Math.min(patienceMs * 2, MAX_REPEAT_MS);
    options.checkAlive?.();
    await delay(VSOCK_RETRY_MS, undefined, options.signal ? { signal: options.signal } : {});
  }
}

async function openWithHandshake(
  path: string,
  greeting: Greeting,
  options: OpenOptions,
  lock?: Lock,
): Promise<AgentStream> {
  let socket: Socket | undefined;
  try {
    socket = await connectUnix(path, options);
    await options.greetAfter;
    const answer = await handshake(socket, greeting, options);
    const opened = socket;
    return {
      socket: opened,
      answer,
      [Symbol.asyncDispose]: async () => {
        opened.destroy();
        await lock?.release();
      },
    };
  } catch (error) {
    socket?.destroy();
    await lock?.release();
    throw error;
  }
}

/** A port serves one client at a time, and a lock that dies with its process says whose turn it is. */
async function lockFreePort(sockets: readonly string[], options: OpenOptions): Promise<{ lock: Lock; socket: string }> {
  for (const socket of sockets) {
    const lock = await tryLock(socket, "agent port");
    if (lock) return { lock, socket };
  }
  const socket = sockets[Math.floor(Math.random() * sockets.length)]!;
  try {
    const timeoutMs = Math.max(0, options.deadlineMs - Date.now());
    const lock = await acquireLock(socket, {
      purpose: "agent port",
      timeoutMs,
      ...(options.signal ? { signal: options.signal } : {}),
    });
    return { lock, socket };
  } catch (error) {
    if (!(error instanceof MvmError && error.code === "LOCKED")) throw error;
    throw new MvmError("AGENT_BUSY", `all ${sockets.length} connections to the guest's agent are in use`, {
      hint: "end one of the running `mvmctl exec`, `logs -f` or `forward` of this instance",
      cause: error,
    });
  }
}

/** Sends the greeting until its answer came; what came before that belongs to an earlier client. */
async function handshake(socket: Socket, greeting: Greeting, options: OpenOptions): Promise<string> {
  let repeatMs = options.repeatAfterMs ?? DEFAULT_REPEAT_MS;
  let next = Date.now() + repeatMs;
  const answered = readUntil(socket, greeting.answer);
  socket.write(greeting.request());
  for (;;) {
    using pause = startPause(Math.max(0, Math.min(next, options.deadlineMs) - Date.now()), options.signal);
    const outcome = await Promise.race([answered, pause.over]);
    if (typeof outcome === "object") return outcome.answer;
    options.signal?.throwIfAborted();
    options.checkAlive?.();
    if (outcome === "ended" && greeting.repeatable) await seeWhetherItEnds(options);
    if (outcome === "ended" || Date.now() >= options.deadlineMs) throw unreachable(outcome);
    // Unsent bytes mean that the guest does not read yet: more would not help it.
    if (greeting.repeatable && socket.writableLength === 0) {
      socket.write(FILLER);
      socket.write(greeting.request());
    }
    repeatMs = Math.min(repeatMs * 2, MAX_REPEAT_MS);
    next = Date.now() + repeatMs;
  }
}

/** A VM that ends closes its sockets before its process is gone, and why it ended says more. @throws what `checkAlive` does */
async function seeWhetherItEnds({ checkAlive }: OpenOptions): Promise<void> {
  const until = Date.now() + ENDING_MS;
  while (checkAlive && Date.now() < until) {
    checkAlive();
    await delay(5);
  }
}

function unreachable(outcome: "ended" | "pause"): MvmError {
  const why = outcome === "ended" ? "it closed the connection" : "it did not answer in time";
  return new MvmError("AGENT_UNREACHABLE", `the guest's agent can't be reached: ${why}`, {
    hint: "`mvmctl logs NAME --console` shows what the guest said last",
  });
}

/** A pause that an abort ends early. Disposing it leaves no timer behind, which would keep the process from ending. */
function startPause(ms: number, signal: AbortSignal | undefined): Disposable & { readonly over: Promise<"pause"> } {
  let end = () => {};
  const over = new Promise<"pause">((resolve) => {
    end = () => resolve("pause");
  });
  const timer = setTimeout(end, ms);
  if (signal?.aborted) end(); // the event is past
  signal?.addEventListener("abort", end, { once: true });
  return {
    over,
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
    },
  };
}

/** More than the longest answer: what of the stream's end is kept to find one that comes in pieces. */
const ANSWER_BYTES = 4096;

/** Reads and discards until the answer; what follows it stays in the socket. */
export function readUntil(socket: Socket, answer: RegExp): Promise<{ readonly answer: string } | "ended"> {
  return new Promise((resolve) => {
    let seen = Buffer.alloc(0);
    let discarded = 0;
    const finish = (outcome: { answer: string } | "ended") => {
      socket.removeListener("readable", onReadable);
      for (const event of ["end", "error", "close"]) socket.removeListener(event, onEnd);
      resolve(outcome);
    };
    const onEnd = () => finish("ended");
    const onReadable = () => {
      for (let chunk: Buffer | null = socket.read(); chunk; chunk = socket.read()) {
        seen = Buffer.concat([seen, chunk]);
        const match = answer.exec(seen.toString("latin1"));
        if (match) {
          const end = match.index + match[0].length;
          const rest = seen.subarray(end);
          finish({ answer: seen.toString("utf8", match.index, end).trimEnd() });
          if (rest.length > 0) socket.unshift(rest);
          return;
        }
        discarded += Math.max(0, seen.length - ANSWER_BYTES);
        seen = seen.subarray(-ANSWER_BYTES);
        if (discarded > MAX_DISCARDED_BYTES) return finish("ended");
      }
    };
    socket.on("readable", onReadable);
    for (const event of ["end", "error", "close"]) socket.on(event, onEnd);
    onReadable();
  });
}
