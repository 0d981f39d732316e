import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync, readFileSync, rmSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { MvmError } from "../core/errors.ts";
import { findProgram, run, spawnChecked } from "../core/process.ts";
import {
  identify,
  isAlive,
  type ProcessIdentity,
  signalProcess,
  VM_DIRECTORY_VARIABLE,
} from "../core/process-identity.ts";
import { lastLines } from "../core/text.ts";
import { connectUnix } from "../core/unix-socket.ts";
import type { PortForward, VmConfig, VmNetwork, VmRef } from "../hypervisor/driver.ts";
import {
  enterPrefix,
  GATEWAY,
  GUEST_ADDRESS,
  GUEST_MAC,
  NAME_SERVER,
  namespaceError,
  namespaceScript,
  PREFIX,
  planFilter,
  READY,
  slirpArguments,
  TAP,
  tunError,
  unshareArguments,
} from "./network-plan.ts";

export interface NetworkOptions {
  /** The VM's directory: network.log is made in it. */
  readonly directory: string;
  readonly forwards: readonly PortForward[];
  /** IPv4 addresses and networks that are not blocked; see planFilter. */
  readonly allow?: readonly string[] | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Starts a VM in a network of its own. The network ends with the hypervisor, however that ends.
 * @throws MvmError as startNetwork, and what `start` throws
 */
export async function startInNetwork(
  config: VmConfig,
  options: Omit<NetworkOptions, "directory" | "forwards">,
  start: (config: VmConfig) => Promise<VmRef>,
): Promise<VmRef> {
  const { directory, ports } = config;
  const network = await startNetwork({ ...options, directory, forwards: ports });
  try {
    return await start({ ...config, network });
  } catch (error) {
    await network.stop();
    throw error;
  } finally {
    network.release();
  }
}

/** A VM's own network. It lives as long as somebody holds `lifeline` open: nothing of it has a name on the host. */
export interface StartedNetwork extends VmNetwork {
  /** Put before the hypervisor's command, it starts in the namespace, in the process that was spawned. */
  readonly prefix: readonly string[];
  /**
   * The hypervisor's standard input: an open file on which nothing ever comes. The network ends when the last process
   * that holds it does.
   */
  readonly lifeline: number;
  /** Gives up this process's hold, once the hypervisor has been spawned; the network now ends with it. */
  release(): void;
  /** Ends the network now, and returns when nothing of it is left. */
  stop(): Promise<void>;
}

const API_SOCKET = "network.sock";
const LOG = "network.log";
/** slirp4netns opens a few files and sockets; it is there in some 20 ms. */
const START_TIMEOUT_MS = 5000;

/**
 * Makes a VM's network: a namespace with a tap for the hypervisor, NAT out and published ports through slirp4netns.
 * However this process ends before `release`, the network ends with it.
 * @throws MvmError `PROGRAM_MISSING`, `TAP_FAILED`, `NETWORK_FAILED`, `PORT_IN_USE`, `INVALID_NETWORK`
 */
export async function startNetwork(options: NetworkOptions): Promise<StartedNetwork> {
  const { directory, signal } = options;
  signal?.throwIfAborted();
  const filter = planFilter(options.allow ?? []);
  requireNetworkTools(options.env);
  const env = { PATH: options.env["PATH"], LANG: "C.UTF-8", [VM_DIRECTORY_VARIABLE]: directory };
  const uid = process.getuid?.() ?? 0;
  const [reading, lifeline] = await openLifeline(directory, env);
  const processes: ProcessIdentity[] = [];
  let held = true;
  const release = () => {
    if (held) closeSync(lifeline);
    held = false;
  };
  const stop = async () => {
    release();
    await end(processes);
  };
  try {
    const args = unshareArguments(uid, namespaceScript(filter));
    const holder = await spawnChecked("unshare", args, {
      cwd: directory,
      env,
      detached: true,
      stdio: [reading, "pipe", "pipe"],
    });
    remember(processes, holder);
    await ready(holder);
    await startSlirp(options, env, reading, slirpArguments(holder.pid!, API_SOCKET, filter), processes);
    signal?.throwIfAborted();
    return {
      prefix: enterPrefix(uid, holder.pid!),
      lifeline,
      netns: `/proc/${holder.pid}/ns/net`,
      tap: TAP,
      guestMac: GUEST_MAC,
      guestAddress: `${GUEST_ADDRESS}/${PREFIX},${GATEWAY},${NAME_SERVER}`,
      release,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    closeSync(reading);
  }
}

/** What the network is made with, and the Debian package that has it. */
const PROGRAMS = {
  slirp4netns: "slirp4netns",
  ip: "iproute2",
  unshare: "util-linux",
  nsenter: "util-linux",
  mkfifo: "coreutils",
};

/** @throws MvmError `PROGRAM_MISSING`, `TAP_FAILED` where a VM's network surely can't be made */
export function requireNetworkTools(env: NodeJS.ProcessEnv): void {
  for (const [program, debianPackage] of Object.entries(PROGRAMS)) {
    if (findProgram(program, env)) continue;
    throw new MvmError("PROGRAM_MISSING", `${program}, which makes the VM's network, was not found`, {
      hint: `install it: apt-get install ${debianPackage}`,
    });
  }
  requireTun();
}

function requireTun(): void {
  try {
    closeSync(openSync("/dev/net/tun", "r+"));
  } catch (error) {
    throw tunError(error);
  }
}

/**
 * Both ends of a pipe, without its name: the end to read says end-of-file when nobody holds the other one any more. That
 * one is open for reading as well (fifo(7)), so that it can be a hypervisor's standard input.
 */
async function openLifeline(directory: string, env: NodeJS.ProcessEnv): Promise<[reading: number, lifeline: number]> {
  const path = join(directory, `.lifeline-${process.pid}`);
  rmSync(path, { force: true });
  const made = await run("mkfifo", ["-m", "600", path], { env });
  if (made.exitCode !== 0)
    throw new MvmError("NETWORK_FAILED", `can't make a pipe in ${directory}`, { detail: lastLines(made.stderr, 1) });
  const lifeline = openSync(path, constants.O_RDWR);
  const reading = openSync(path, constants.O_RDONLY);
  unlinkSync(path);
  return [reading, lifeline];
}

function remember(processes: ProcessIdentity[], child: ChildProcess): void {
  child.unref();
  const identity = identify(child.pid!);
  if (identity) processes.push(identity);
}

/** Waits until the namespace is made. Afterwards its process says nothing more. */
async function ready(holder: ChildProcess): Promise<void> {
  const [stdout, stderr] = [holder.stdout!, holder.stderr!];
  let said = "";
  let errors = "";
  stderr.setEncoding("utf8").on("data", (chunk: string) => {
    errors += chunk;
  });
  await new Promise<void>((resolve) => {
    stdout.setEncoding("utf8").on("data", (chunk: string) => {
      said += chunk;
      if (said.includes(READY)) resolve();
    });
    holder.once("close", () => resolve());
  });
  if (!said.includes(READY)) throw namespaceError(errors);
  stdout.destroy();
  stderr.destroy();
}

async function startSlirp(
  { directory, forwards, signal }: NetworkOptions,
  env: NodeJS.ProcessEnv,
  reading: number,
  args: readonly string[],
  processes: ProcessIdentity[],
): Promise<void> {
  const socket = join(directory, API_SOCKET);
  rmSync(socket, { force: true });
  const log = openSync(join(directory, LOG), "w", 0o644);
  try {
    const stdio = ["ignore" as const, log, log, reading, "pipe" as const];
    const slirp = await spawnChecked("slirp4netns", args, { cwd: directory, env, detached: true, stdio });
    remember(processes, slirp);
    const readyPipe = slirp.stdio[4] as NodeJS.ReadableStream & { destroy(): void };
    // It says "1", or it ends and says nothing.
    const started = await Promise.race([once(readyPipe, "data"), once(slirp, "exit").then(() => undefined)]);
    readyPipe.destroy();
    if (!started) throw slirpError(directory);
    for (const forward of forwards) await publish(socket, forward, signal);
  } finally {
    closeSync(log);
    // Who can write to it could publish more ports.
    rmSync(socket, { force: true });
  }
}

/** slirp4netns takes one request a connection (slirp4netns(1), "API SOCKET"). */
async function publish(
  path: string,
  { hostAddress, hostPort, guestPort }: PortForward,
  signal?: AbortSignal,
): Promise<void> {
  const request = {
    execute: "add_hostfwd",
    arguments: {
      proto: "tcp",
      host_addr: hostAddress,
      host_port: hostPort,
      guest_addr: GUEST_ADDRESS,
      guest_port: guestPort,
    },
  };
  const socket = await connectUnix(path, { deadlineMs: Date.now() + START_TIMEOUT_MS, signal });
  socket.setTimeout(START_TIMEOUT_MS, () => socket.destroy(new Error("slirp4netns does not answer")));
  socket.end(JSON.stringify(request));
  let answer = "";
  for await (const chunk of socket) answer += chunk;
  if (answer.includes('"return"')) return;
  throw new MvmError("PORT_IN_USE", `port ${hostPort} of ${hostAddress} is in use by another program`, {
    detail: answer.trim(),
    hint: `choose another host port: -p ${hostPort < 65535 ? hostPort + 1 : hostPort - 1}:GUEST`,
  });
}

function slirpError(directory: string): MvmError {
  return new MvmError("NETWORK_FAILED", "slirp4netns, which carries the VM's network, ended at its start", {
    detail: lastLines(readFileSync(join(directory, LOG), "utf8"), 5) || "it left no message",
    hint: "run `mvmctl doctor`",
  });
}

/** Without its lifeline the network ends by itself; this makes sure, and waits for it. */
async function end(processes: readonly ProcessIdentity[]): Promise<void> {
  for (const process of processes) signalProcess(process, "SIGKILL");
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (processes.some(isAlive) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2));
}
