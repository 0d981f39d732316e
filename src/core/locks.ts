import { createHash } from "node:crypto";
import { connect, createServer, type Server } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { isErrno, MvmError } from "./errors.ts";

/**
 * A lock is a listening abstract Unix socket (unix(7)): the kernel gives a name to one process at a time and takes it
 * back when that process dies, however it dies. So no lock is ever stale, and there is nothing to clean up. Someone who
 * waits connects to the holder, reads who it is, and is woken when the connection ends.
 *
 * Abstract names belong to a network namespace: processes in different ones do not see each other's locks.
 */
export interface Lock extends AsyncDisposable {
  release(): Promise<void>;
}

export interface LockOptions {
  /** What the holder is doing, shown to whoever waits: "building my-service". */
  purpose: string;
  /** How long to wait for a held lock. 0 does not wait. */
  timeoutMs: number;
  signal?: AbortSignal;
  /** Called once when the lock is held by somebody else, with what they said they do. */
  onWait?: (holder: string) => void;
}

/** Names of sockets have 108 bytes (unix(7)). */
const MAX_NAME_BYTES = 107;

/** The resource's own name where it fits: most do, and Node loads seventeen modules to digest one. */
function socketName(resource: string): string {
  const prefix = `\0mvm-lock-${process.getuid?.() ?? 0}-`;
  if (Buffer.byteLength(prefix + resource) <= MAX_NAME_BYTES) return prefix + resource;
  return `${prefix}${createHash("sha256").update(resource).digest("hex")}`;
}

function tryListen(resource: string, purpose: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((waiter) => {
      waiter.on("error", () => waiter.destroy());
      waiter.unref();
      waiter.write(`process ${process.pid} (${purpose})\n`);
    });
    server.once("error", (error) => (isErrno(error, "EADDRINUSE") ? resolve(undefined) : reject(error)));
    server.listen({ path: socketName(resource) }, () => resolve(server));
    server.unref();
  });
}

/** Connects to the holder and resolves when it lets go (or is gone already). */
function waitForRelease(resource: string, timeoutMs: number, onHolder: (holder: string) => void): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ path: socketName(resource) });
    const timer = setTimeout(() => socket.destroy(), timeoutMs);
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => onHolder(text.trim()));
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/**
 * Takes the lock named `resource` (an absolute path, or any other unique text), waiting up to `timeoutMs`.
 * @throws MvmError `LOCKED`, naming the holder
 */
export async function acquireLock(resource: string, options: LockOptions): Promise<Lock> {
  const deadline = Date.now() + options.timeoutMs;
  let holder = "another mvmctl";
  for (let announced = false; ; ) {
    options.signal?.throwIfAborted();
    const server = await tryListen(resource, options.purpose);
    if (server) return lockOf(server);
    const left = deadline - Date.now();
    if (left <= 0) {
      throw new MvmError("LOCKED", `${resource} is in use by ${holder}`, {
        hint: "wait until it is done, and try again",
      });
    }
    const slice = Math.min(left, options.signal ? 250 : left);
    await waitForRelease(resource, slice, (text) => {
      holder = text;
      if (announced) return;
      announced = true;
      options.onWait?.(text);
    });
    // Many may wait for one holder; a random moment keeps them from all trying at once for ever.
    await delay(Math.random() * 3);
  }
}

/** Takes the lock if it is free. */
export async function tryLock(resource: string, purpose: string): Promise<Lock | undefined> {
  const server = await tryListen(resource, purpose);
  return server && lockOf(server);
}

function lockOf(server: Server): Lock {
  const waiters = new Set<import("node:net").Socket>();
  server.on("connection", (waiter) => {
    waiters.add(waiter);
    waiter.on("close", () => waiters.delete(waiter));
  });
  const release = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const waiter of waiters) waiter.destroy();
    });
  return { release, [Symbol.asyncDispose]: release };
}
