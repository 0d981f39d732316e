import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileError, MvmError } from "../core/errors.ts";
import { findProgram, spawnChecked } from "../core/process.ts";
import {
  findVmProcesses,
  identify,
  isAlive,
  type ProcessIdentity,
  signalProcess,
  VM_DIRECTORY_VARIABLE,
} from "../core/process-identity.ts";
import { lastLines } from "../core/text.ts";
import { connectUnix } from "../core/unix-socket.ts";
import type { Driver, SnapshotFiles, StartOptions, VmConfig, VmRef } from "./driver.ts";
import {
  AGENT_PORT_COUNT,
  agentSocket,
  CONSOLE_LOG,
  HYPERVISOR_LOG,
  type MemorySource,
  QMP_SOCKET,
  qemuArguments,
  VMSTATE_FD,
} from "./qemu-arguments.ts";
import { probeQemu, QEMU_INSTALL_HINT, type QemuFacts } from "./qemu-probe.ts";
import { QmpClient } from "./qmp.ts";

/** A QEMU that has not answered its control socket by then hangs. */
const CONTROL_TIMEOUT_MS = 5000;
/** The state of a VM whose memory stays in its file is some 100 kB: a minute means that the disk hangs. */
const SNAPSHOT_TIMEOUT_MS = 60_000;
const KILL_TIMEOUT_MS = 5000;
/** From closing its sockets to the end of QEMU's process. */
const ENDING_MS = 500;

/** QEMU's microvm machine: KVM where it works, emulation everywhere else. */
export function createQemuDriver(host: { cacheDir: string; env: NodeJS.ProcessEnv }): Driver {
  let facts: Promise<QemuFacts> | undefined;
  const probe = (signal?: AbortSignal) => {
    facts ??= probeQemu(host.cacheDir, host.env, signal);
    return facts;
  };

  async function start(
    config: VmConfig,
    memory: MemorySource,
    incoming: SnapshotFiles | undefined,
    options: StartOptions,
  ): Promise<VmRef> {
    const facts = await probe();
    const { binary } = facts;
    const args = qemuArguments(config, facts, memory, incoming);
    const prefix = launchPrefix(options, memory, host.env);
    const [program = binary, ...rest] = prefix.length > 0 ? [...prefix, binary] : [];
    removeSockets(config.directory);
    const log = openForVm(join(config.directory, HYPERVISOR_LOG), "a");
    const vmstate = incoming ? openForVm(incoming.vmstate, "r") : undefined;
    try {
      const child = await spawnChecked(
        program,
        [...rest, ...args],
        {
          cwd: config.directory,
          env: { ...hypervisorEnvironment(host.env), [VM_DIRECTORY_VARIABLE]: config.directory },
          detached: true,
          stdio: ["ignore", log, log, ...(vmstate === undefined ? [] : [vmstate])],
        },
        QEMU_INSTALL_HINT,
      );
      child.unref();
      const identity = identify(child.pid!);
      if (!identity) throw explainEnd(config.directory);
      return { directory: config.directory, process: identity };
    } finally {
      closeSync(log);
      if (vmstate !== undefined) closeSync(vmstate);
    }
  }

  async function control<T>(vm: VmRef, use: (qmp: QmpClient) => Promise<T>): Promise<T> {
    try {
      const socket = await connectUnix(join(vm.directory, QMP_SOCKET), {
        deadlineMs: Date.now() + CONTROL_TIMEOUT_MS,
        checkAlive: () => {
          if (!isAlive(vm.process)) throw explainEnd(vm.directory);
        },
      });
      using qmp = await QmpClient.open(socket, CONTROL_TIMEOUT_MS);
      return await use(qmp);
    } catch (error) {
      // A control socket that breaks is how a VM that ends looks from here, a moment before it has; why it ended says more.
      throw (await hasEnded(vm)) ? explainEnd(vm.directory) : error;
    }
  }

  return {
    name: "qemu",
    capabilities: { snapshot: true, userNetwork: true },

    probe: async (signal) => (await probe(signal)).identity,

    boot: (config, options = {}) =>
      start(
        config,
        options.memoryFile ? { kind: "shared", path: options.memoryFile } : { kind: "anonymous" },
        undefined,
        options,
      ),

    async restore(config, files, options = {}) {
      const vm = await start(config, { kind: "private", path: files.memory }, files, options);
      try {
        await control(vm, loadAndContinue);
        return vm;
      } catch (error) {
        await killVm(vm);
        throw error;
      }
    },

    pause: (vm) => control(vm, async (qmp) => void (await qmp.execute("stop"))),
    resume: (vm) => control(vm, async (qmp) => void (await qmp.execute("cont"))),

    snapshot: (vm, vmstate) =>
      control(vm, async (qmp) => {
        await qmp.execute("migrate-set-capabilities", IGNORE_SHARED);
        await qmp.execute("migrate", { uri: `exec:cat > ${shellQuote(vmstate)}` });
        await waitForMigration(qmp);
      }),

    kill: killVm,
    explainEnd,
    agentEndpoint: (directory) => ({
      kind: "ports",
      sockets: Array.from({ length: AGENT_PORT_COUNT }, (_, index) => join(directory, agentSocket(index))),
    }),
    logFiles: (directory) => ({ console: join(directory, CONSOLE_LOG), hypervisor: join(directory, HYPERVISOR_LOG) }),
  };
}

/** Nothing of the caller's environment reaches the hypervisor, so that no secret of it can end up in a VM's files. */
function hypervisorEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { PATH: env["PATH"], LANG: "C.UTF-8" };
}

/**
 * Programs that QEMU is started through. `setpriv --pdeathsig` ends it with its parent. A snapshot's memory is read-only
 * for its owner too, and QEMU opens it for writing even for a private mapping: root may, and other users become root of
 * a user namespace that holds nothing but themselves.
 */
function launchPrefix(options: StartOptions, memory: MemorySource, env: NodeJS.ProcessEnv): string[] {
  const prefix: string[] = [];
  if (memory.kind === "private" && process.getuid?.() !== 0) prefix.push("unshare", "--user", "--map-root-user", "--");
  if (options.dieWithParent && findProgram("setpriv", env)) prefix.push("setpriv", "--pdeathsig", "KILL", "--");
  return prefix;
}

/** Whether the process ends now: its sockets close before it does. */
async function hasEnded(vm: VmRef): Promise<boolean> {
  const deadline = Date.now() + ENDING_MS;
  while (isAlive(vm.process)) {
    if (Date.now() > deadline) return false;
    await delay(5);
  }
  return true;
}

/** Those of a VM that was killed here a moment ago may still take connections, and drop them. */
function removeSockets(directory: string): void {
  const agents = Array.from({ length: AGENT_PORT_COUNT }, (_, index) => agentSocket(index));
  for (const socket of [QMP_SOCKET, ...agents]) rmSync(join(directory, socket), { force: true });
}

function openForVm(path: string, flags: "a" | "r"): number {
  try {
    return openSync(path, flags, 0o644);
  } catch (error) {
    throw fileError(error, path, "open");
  }
}

/** "The memory is in its file already": it is neither written to nor read from the vmstate. */
const IGNORE_SHARED = { capabilities: [{ capability: "x-ignore-shared", state: true }] };

/**
 * Loads the vmstate and lets the VM run. It was paused when it was captured, so it is paused as well once it is loaded;
 * until then it is `inmigrate`, where `cont` would be forgotten.
 */
async function loadAndContinue(qmp: QmpClient): Promise<void> {
  await qmp.execute("migrate-set-capabilities", IGNORE_SHARED);
  await qmp.execute("migrate-incoming", { uri: `fd:${VMSTATE_FD}` });
  const deadline = Date.now() + CONTROL_TIMEOUT_MS;
  for (;;) {
    const { status } = await qmp.execute<{ status: string }>("query-status");
    if (status !== "inmigrate") break;
    if (Date.now() > deadline) throw new MvmError("VM_START_FAILED", "QEMU did not load the snapshot in time");
    await delay(2);
  }
  await qmp.execute("cont");
}

async function waitForMigration(qmp: QmpClient): Promise<void> {
  const deadline = Date.now() + SNAPSHOT_TIMEOUT_MS;
  for (;;) {
    const answer = await qmp.execute<{ status?: string; "error-desc"?: string }>("query-migrate");
    if (answer.status === "completed") return;
    if (answer.status === "failed" || answer.status === "cancelled" || Date.now() > deadline) {
      const why = answer["error-desc"] ?? `its state is '${answer.status ?? "unknown"}'`;
      throw new MvmError("SNAPSHOT_FAILED", `QEMU could not write the VM's state: ${why}`, {
        hint: "check the free space of the data directory",
      });
    }
    await delay(2);
  }
}

async function killVm(vm: { directory: string; process?: ProcessIdentity | undefined }): Promise<void> {
  const deadline = Date.now() + KILL_TIMEOUT_MS;
  for (const process of vm.process ? [vm.process, ...findVmProcesses(vm.directory)] : findVmProcesses(vm.directory)) {
    signalProcess(process, "SIGKILL");
    while (isAlive(process)) {
      if (Date.now() > deadline) {
        throw new MvmError("VM_KILL_FAILED", `QEMU (process ${process.pid}) does not end`, {
          hint: "it may wait for a disk that hangs: look at `dmesg`",
        });
      }
      await delay(5);
    }
  }
}

function shellQuote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** What QEMU says when it can't bind a published port ("-netdev user" in net/slirp.c). */
const PORT_TAKEN = /Could not set up host forwarding rule '?tcp:([^:]*):(\d+)-/;

function explainEnd(directory: string): MvmError {
  const log = readLog(join(directory, HYPERVISOR_LOG));
  const port = PORT_TAKEN.exec(log);
  if (port) {
    return new MvmError("PORT_IN_USE", `port ${port[2]} of ${port[1]} is in use by another program`, {
      hint: `choose another host port: -p ${Number(port[2]) + 1}:GUEST`,
    });
  }
  const console = readLog(join(directory, CONSOLE_LOG));
  return new MvmError("VM_DIED", "the VM ended by itself", {
    detail: [lastLines(log, 5), lastLines(console, 15)].filter(Boolean).join("\n") || "it left no message",
    hint: "if the guest ran out of memory, give it more with --mem",
  });
}

function readLog(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
