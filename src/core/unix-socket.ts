import { closeSync, existsSync, openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { basename, dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isErrno, MvmError } from "./errors.ts";

/** sun_path of unix(7) holds 108 bytes with its end mark. */
const MAX_SOCKET_PATH = 107;

/**
 * Connects to a Unix socket, whatever the length of its path: a longer one is reached through a file descriptor of its
 * directory.
 */
function connectOnce(path: string): Promise<Socket> {
  const long = Buffer.byteLength(path) > MAX_SOCKET_PATH;
  const directory = long ? openSync(dirname(path), "r") : undefined;
  return new Promise<Socket>((resolve, reject) => {
    const socket = connect({ path: directory === undefined ? path : `/proc/self/fd/${directory}/${basename(path)}` });
    socket.once("connect", () => {
      socket.removeListener("error", reject);
      resolve(socket);
    });
    socket.once("error", reject);
  }).finally(() => directory !== undefined && closeSync(directory));
}

export interface ConnectOptions {
  /** Until then it is tried again and again: the server may be about to start. */
  deadlineMs: number;
  signal?: AbortSignal | undefined;
  /** Thrown into the wait when the server can no longer come: its process has ended. */
  checkAlive?: (() => void) | undefined;
}

/** Soon after a process was spawned its sockets appear within milliseconds; later there is no hurry. */
const FIRST_RETRIES_MS = 2;
const LATER_RETRIES_MS = 20;
const EAGER_PERIOD_MS = 1000;

/** Connects as soon as somebody listens. @throws MvmError `UNREACHABLE` after the deadline (a time of Date.now()) */
export async function connectUnix(path: string, options: ConnectOptions): Promise<Socket> {
  const started = Date.now();
  for (;;) {
    options.signal?.throwIfAborted();
    let cause: unknown;
    try {
      // To look costs a fraction of trying.
      if (existsSync(path)) return await connectOnce(path);
    } catch (error) {
      if (!isErrno(error, "ENOENT", "ECONNREFUSED", "EAGAIN")) throw error;
      cause = error;
    }
    options.checkAlive?.();
    if (Date.now() >= options.deadlineMs) {
      throw new MvmError("UNREACHABLE", `nobody listens on ${path}`, { cause });
    }
    await delay(Date.now() - started < EAGER_PERIOD_MS ? FIRST_RETRIES_MS : LATER_RETRIES_MS);
  }
}
