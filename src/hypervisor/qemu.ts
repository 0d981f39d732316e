import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { MvmError } from "../core/errors.ts";
import { connectUnix } from "../core/unix-socket.ts";
import {
  CONSOLE_LOG,
  type Driver,
  HYPERVISOR_LOG,
  type SnapshotFiles,
  type StartOptions,
  type VmConfig,
  type VmNetwork,
  type VmRef,
} from "./driver.ts";
import {
  agentSocket,
  LEAST_AGENT_PORTS,
  type MemorySource,
  MOST_AGENT_PORTS,
  QMP_SOCKET,
  qemuArguments,
  VMSTATE_FD,
} from "./qemu-arguments.ts";
import { probeQemu, QEMU_INSTALL_HINT, type QemuFacts } from "./qemu-probe.ts";
import { QmpClient } from "./qmp.ts";
import { requireAlive } from "./require-alive.ts";
import { hasEnded, killVm, networkPrefix, parentDeathPrefix, readLog, startVmProcess, vmDied } from "./vm-process.ts";

/** A QEMU that has not answered its control socket by then hangs. */
const CONTROL_TIMEOUT_MS = 5000;
/** The state of a VM whose memory stays in its file is some 100 kB: a minute means that the disk hangs. */
const SNAPSHOT_TIMEOUT_MS = 60_000;

const AGENT_SOCKETS = Array.from({ length: MOST_AGENT_PORTS }, (_, index) => agentSocket(index));

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
    return startVmProcess({
      directory: config.directory,
      command: [
        ...namespacePrefix(config.network, memory),
        ...parentDeathPrefix(options, host.env),
        facts.binary,
        ...qemuArguments(config, facts, memory, incoming),
      ],
      env: host.env,
      log: HYPERVISOR_LOG,
      input: incoming?.vmstate,
      stdin: config.network?.lifeline,
      sockets: [QMP_SOCKET, ...AGENT_SOCKETS],
      installHint: QEMU_INSTALL_HINT,
      onStarted: options.onStarted,
      explainEnd,
    });
  }

  async function control<T>(vm: VmRef, use: (qmp: QmpClient) => Promise<T>): Promise<T> {
    try {
      const socket = await connectUnix(join(vm.directory, QMP_SOCKET), {
        deadlineMs: Date.now() + CONTROL_TIMEOUT_MS,
        checkAlive: () => requireAlive(vm, { explainEnd }),
      });
      using qmp = QmpClient.open(socket, CONTROL_TIMEOUT_MS);
      return await use(qmp);
    } catch (error) {
      // A control socket that breaks is how a VM that ends looks from here, a moment before it has; why it ended says more.
      if (await hasEnded(vm)) throw explainEnd(vm.directory);
      throw isUnreachable(error) ? hangs(error) : error;
    }
  }

  return {
    name: "qemu",
    capabilities: { snapshot: true, userNetwork: true, jail: false },

    probe: async (signal) => (await probe(signal)).identity,

    async drawback() {
      const { withoutKvm } = await probe();
      return withoutKvm && `the guest is emulated: ${withoutKvm}`;
    },

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
        await control(vm, (qmp) => loadAndContinue(qmp, options.onLoaded));
        return vm;
      } catch (error) {
        await killVm(vm);
        throw error;
      }
    },

    pause: (vm) => control(vm, async (qmp) => void (await qmp.execute("stop"))),
    resume: (vm) => control(vm, async (qmp) => void (await qmp.execute("cont"))),

    snapshot: (vm, { vmstate }) =>
      control(vm, async (qmp) => {
        await qmp.execute("migrate-set-capabilities", IGNORE_SHARED);
        await qmp.execute("migrate", { uri: `exec:cat > ${shellQuote(vmstate)}` });
        await waitForMigration(qmp);
      }),

    kill: killVm,
    explainEnd,
    agentEndpoint(directory) {
      const sockets = AGENT_SOCKETS.map((socket) => join(directory, socket));
      const there = sockets.filter((socket) => existsSync(socket));
      // One that has yet to start will have at least so many.
      return { kind: "ports", sockets: there.length > 0 ? there : sockets.slice(0, LEAST_AGENT_PORTS) };
    },
    logFiles: (directory) => ({ console: join(directory, CONSOLE_LOG), hypervisor: join(directory, HYPERVISOR_LOG) }),
  };
}

/**
 * A snapshot's memory is read-only for its owner too, and QEMU opens it for writing even for a private mapping: root may,
 * and other users become root of a user namespace that holds nothing but themselves. A network of the VM's own is in one.
 */
function namespacePrefix(network: VmNetwork | undefined, memory: MemorySource): readonly string[] {
  if (network) return networkPrefix(network);
  return memory.kind === "private" && process.getuid?.() !== 0 ? ["unshare", "--user", "--map-root-user", "--"] : [];
}

/** "The memory is in its file already": it is neither written to nor read from the vmstate. */
const IGNORE_SHARED = { capabilities: [{ capability: "x-ignore-shared", state: true }] };

/**
 * Loads the vmstate and lets the VM run. It was paused when it was captured, so it is paused as well once it is loaded;
 * until then it is `inmigrate`, where `cont` would be forgotten.
 */
async function loadAndContinue(qmp: QmpClient, onLoaded: StartOptions["onLoaded"]): Promise<void> {
  // All are sent at once: QEMU carries them out as soon as it is up, without waiting for this process in between.
  await Promise.all([
    qmp.execute("migrate-set-capabilities", IGNORE_SHARED),
    qmp.execute("migrate-incoming", { uri: `fd:${VMSTATE_FD}` }),
  ]);
  const deadline = Date.now() + CONTROL_TIMEOUT_MS;
  for (;;) {
    const { status } = await qmp.execute<{ status: string }>("query-status");
    if (status !== "inmigrate") break;
    if (Date.now() > deadline) throw new MvmError("VM_START_FAILED", "QEMU did not load the snapshot in time");
    await delay(1);
  }
  onLoaded?.();
  await qmp.execute("cont");
}

function isUnreachable(error: unknown): boolean {
  return error instanceof MvmError && error.code === "UNREACHABLE";
}

function hangs(cause: unknown): MvmError {
  const seconds = CONTROL_TIMEOUT_MS / 1000;
  return new MvmError("HYPERVISOR_FAILED", `QEMU runs, and does not listen to its control socket within ${seconds} s`, {
    cause,
    hint: "try again when the machine has less to do; `mvmctl status` shows what runs",
  });
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
  return vmDied(directory);
}
