import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { join, resolve } from "node:path";
import { isErrno, MvmError } from "./errors.ts";

/** The one place that starts processes. */

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Written to standard input, which is then closed. Without it, standard input is empty. */
  input?: string | Uint8Array;
  signal?: AbortSignal;
  /** Whole run; past it the process group is killed and `PROCESS_TIMEOUT` thrown. */
  timeoutMs?: number;
  /** Called with each line of standard error as it comes. */
  onStderrLine?: (line: string) => void;
  /** How to get the program where it is missing: "apt-get install nix-bin". */
  installHint?: string;
}

export interface RunResult {
  /** 128 + the signal's number if it died of one. */
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** More output than this of one stream is cut at the front: no command of ours prints it in health. */
const MAX_CAPTURE_CHARACTERS = 64 * 1024 * 1024;
/** How long a cancelled process may take to end after SIGTERM. */
const TERMINATE_GRACE_MS = 1000;

/**
 * Runs a program to its end and returns what it printed, whatever its exit code.
 * @throws MvmError `PROGRAM_MISSING`, `PROCESS_TIMEOUT`; the signal's reason when aborted
 */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const child = await spawnChecked(
    command,
    args,
    { cwd: options.cwd, env: options.env, stdio: ["pipe", "pipe", "pipe"], detached: true },
    options.installHint,
  );
  child.stdin!.on("error", () => {}); // a program may end without reading its input
  child.stdin!.end(options.input ?? "");
  const stdout = collect(child.stdout!);
  const stderr = collect(child.stderr!, options.onStderrLine);
  let timedOut = false;
  const end = () => endGroup(child);
  const timer = options.timeoutMs
    ? setTimeout(() => {
        timedOut = true;
        end();
      }, options.timeoutMs)
    : undefined;
  if (options.signal?.aborted) end(); // while the program was being started
  options.signal?.addEventListener("abort", end, { once: true });
  try {
    const exitCode = await exitOf(child);
    if (timedOut) throw new MvmError("PROCESS_TIMEOUT", `${command} did not end within ${options.timeoutMs} ms`);
    options.signal?.throwIfAborted();
    return { exitCode, stdout: stdout(), stderr: stderr() };
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", end);
  }
}

/** Spawns and waits until the program has really started. @throws MvmError `PROGRAM_MISSING` */
export function spawnChecked(
  command: string,
  args: readonly string[],
  options: SpawnOptions,
  installHint?: string,
): Promise<ChildProcess> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, options);
    child.once("spawn", () => resolve(child));
    child.once("error", (error) => {
      if (typeof options.cwd === "string" && !existsSync(options.cwd)) {
        // spawn reports a missing working directory as a missing program
        reject(
          new MvmError("FILE_FAILED", `could not run ${command} in ${options.cwd}: there is no such directory`, {
            cause: error,
          }),
        );
        return;
      }
      if (isErrno(error, "ENOENT", "EACCES")) {
        const hint = installHint ? { hint: installHint } : {};
        reject(
          new MvmError("PROGRAM_MISSING", `${command} was not found or can't be executed`, { cause: error, ...hint }),
        );
      } else reject(error);
    });
  });
}

/**
 * Runs a program that a person watches and may have to answer (a password): on our terminal, its output on our standard
 * error. Ctrl+C reaches it as it reaches us. Returns its exit code.
 * @throws MvmError `PROGRAM_MISSING`
 */
export async function runAttached(command: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  return exitOf(await spawnChecked(command, args, { env, stdio: ["inherit", process.stderr.fd, "inherit"] }));
}

/** Ends a child and all it started: SIGTERM to its process group, SIGKILL after a second. */
function endGroup(child: ChildProcess): void {
  signalGroup(child, "SIGTERM");
  const timer = setTimeout(() => {
    signalGroup(child, "SIGKILL");
    // A descendant that left the group may hold our pipes open for ever: its output is waited for no longer.
    child.stdout?.destroy();
    child.stderr?.destroy();
  }, TERMINATE_GRACE_MS);
  child.once("close", () => clearTimeout(timer));
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (child.pid) process.kill(-child.pid, signal);
  } catch {
    // it is gone already
  }
}

/** Resolves with the exit code once the process has ended and its output was read. */
function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.once("close", (code, signal) => resolve(code ?? 128 + (signal ? osConstants.signals[signal] : 0)));
  });
}

function collect(stream: NodeJS.ReadableStream, onLine?: (line: string) => void): () => string {
  let text = "";
  let partial = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk: string) => {
    text += chunk;
    if (text.length > MAX_CAPTURE_CHARACTERS) text = text.slice(-MAX_CAPTURE_CHARACTERS / 2);
    if (!onLine) return;
    const lines = (partial + chunk).split(/\r?\n|\r/);
    partial = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  });
  if (onLine) stream.on("end", () => partial && onLine(partial));
  return () => text;
}

/** The absolute path of a program on the PATH (or of a path itself), if it is there and executable. */
export function findProgram(name: string, env: NodeJS.ProcessEnv): string | undefined {
  const candidates = name.includes("/")
    ? [resolve(name)]
    : (env["PATH"] ?? "").split(":").flatMap((directory) => (directory ? [join(directory, name)] : []));
  return candidates.find((candidate) => {
    try {
      accessSync(candidate, constants.X_OK);
      return statSync(candidate).isFile();
    } catch {
      return false;
    }
  });
}
