import { rmdirSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { isErrno, MvmError } from "../core/errors.ts";
import type { Paths } from "../core/paths.ts";
import { lastLines } from "../core/text.ts";
import { connectUnix } from "../core/unix-socket.ts";
import { CONSOLE_LOG, type Driver, HYPERVISOR_LOG, type StartOptions, type VmConfig, type VmRef } from "./driver.ts";
import type { FirecrackerApi } from "./firecracker-api.ts";
import {
  deviceBinds,
  digHoles,
  makeEmpty,
  makeOwnFiles,
  move,
  ownBinds,
  ROOT,
  RUN,
  requireElf,
} from "./firecracker-files.ts";
import { jailCgroup, prepareJail } from "./firecracker-jail.ts";
import { bindsOf, describeMachine, kernelBinds, snapshotToLoad } from "./firecracker-machine.ts";
import { type Bind, confinedCommand, INSIDE } from "./firecracker-namespace.ts";
import { FIRECRACKER_INSTALL_HINT, type FirecrackerFacts, probeFirecracker } from "./firecracker-probe.ts";
import { firecrackerFeatures } from "./firecracker-version.ts";
import { requireAlive } from "./require-alive.ts";
import { hasEnded, killVm, networkPrefix, parentDeathPrefix, readLog, startVmProcess, vmDied } from "./vm-process.ts";

const AGENT_PORT = 52;

/** From starting its process, through the namespace's mounts, to an open control socket. */
const CONTROL_TIMEOUT_MS = 5000;

/** Firecracker on KVM. */
export function createFirecrackerDriver(
  host: Pick<Context, "env"> & { paths: Pick<Paths, "dataDir" | "cache"> },
): Driver {
  let facts: Promise<FirecrackerFacts> | undefined;
  const probe = (signal?: AbortSignal) => {
    facts ??= probeFirecracker(host.paths, host.env, signal);
    return facts;
  };

  async function start(config: VmConfig, binds: readonly Bind[], options: StartOptions): Promise<VmRef> {
    requireNetwork(config);
    const { binary } = await probe();
    const { directory } = config;
    const ownFiles = makeOwnFiles(directory);
    const writes = config.dataDisk ? [...ownFiles, config.dataDisk] : ownFiles;
    const jail = options.jail && prepareJail(options.jail, { directory, binary, writes }, host.env);
    const command = confinedCommand({
      mountPoint: join(directory, ROOT),
      binds: [...bindsOf(config), ...binds, ...ownBinds(directory), ...(jail ? [] : deviceBinds(config))],
      binary,
      args: ["--api-sock", INSIDE.api],
      opensTap: config.network !== undefined,
      unprivileged: process.getuid?.() !== 0,
      jail,
    });
    const { network } = config;
    const inNetwork = network ? networkPrefix(network) : [];
    return startVmProcess({
      directory,
      command: [...inNetwork, ...parentDeathPrefix(options, host.env), ...command],
      env: host.env,
      log: CONSOLE_LOG,
      stdin: network?.lifeline,
      sockets: [join(RUN, "api.sock"), join(RUN, "v.sock")],
      installHint: FIRECRACKER_INSTALL_HINT,
      onStarted: options.onStarted,
      explainEnd,
    });
  }

  /** Starts Firecracker and does what makes it a VM; one that fails leaves no process. */
  async function startAnd(
    config: VmConfig,
    binds: readonly Bind[],
    options: StartOptions,
    use: (api: FirecrackerApi) => Promise<unknown>,
  ): Promise<VmRef> {
    const vm = await start(config, binds, options);
    try {
      await control(vm, async (api) => {
        await api.putLogger({ log_path: INSIDE.log, level: "Info" });
        await use(api);
      });
      return vm;
    } catch (error) {
      await kill(vm);
      throw error;
    }
  }

  return {
    name: "firecracker",
    capabilities: { snapshot: true, userNetwork: false, jail: true },

    probe: async (signal) => (await probe(signal)).identity,

    async boot(config, options = {}) {
      requireElf(config.kernel);
      const { memoryFile } = options;
      if (memoryFile) makeEmpty(memoryFile);
      const memory = memoryFile ? [{ from: memoryFile, at: INSIDE.memory, writable: true }] : [];
      return startAnd(config, [...kernelBinds(config), ...memory], options, async (api) => {
        await describeMachine(api, config);
        await api.start();
      });
    },

    async restore(config, files, options = {}) {
      const { identity } = await probe();
      const binds = [
        { from: files.vmstate, at: INSIDE.vmstate, writable: false },
        { from: files.memory, at: INSIDE.memory, writable: false },
      ];
      const features = firecrackerFeatures(identity.version);
      return startAnd(config, binds, options, (api) => api.loadSnapshot(snapshotToLoad(config), features));
    },

    pause: (vm, before) =>
      control(vm, async (api) => {
        if (before === "resume") requireResume(await api.version());
        await api.pause();
      }),

    resume: (vm) => control(vm, async (api) => void (await api.resume())),

    async snapshot(vm, files) {
      await control(vm, (api) =>
        api.createSnapshot({ snapshot_path: INSIDE.newVmstate, mem_file_path: INSIDE.memory }),
      );
      move(join(vm.directory, RUN, "vmstate.bin"), files.vmstate);
      await digHoles(files, host.env);
    },

    kill,
    explainEnd,
    agentEndpoint: (directory) => ({ kind: "vsock", socket: join(directory, RUN, "v.sock"), port: AGENT_PORT }),
    logFiles: (directory) => ({ console: join(directory, CONSOLE_LOG), hypervisor: join(directory, HYPERVISOR_LOG) }),
  };
}

async function control<T>(vm: VmRef, use: (api: FirecrackerApi) => Promise<T>): Promise<T> {
  try {
    const [socket, { FirecrackerApi }] = await Promise.all([
      connectUnix(join(vm.directory, RUN, "api.sock"), {
        deadlineMs: Date.now() + CONTROL_TIMEOUT_MS,
        checkAlive: () => requireAlive(vm, { explainEnd }),
      }),
      import("./firecracker-api.ts"), // it brings HTTP, which other commands need not load
    ]);
    using api = new FirecrackerApi(socket);
    return await use(api);
  } catch (error) {
    if (error instanceof MvmError && error.code === "HYPERVISOR_REFUSED") throw error;
    // An API that breaks is how a VM that ends looks from here, a moment before it has; why it ended says more.
    throw (await hasEnded(vm)) ? explainEnd(vm.directory, error) : error;
  }
}

async function kill(vm: Parameters<typeof killVm>[0]): Promise<void> {
  await killVm(vm);
  try {
    rmdirSync(jailCgroup(vm.directory));
  } catch (error) {
    // ENOENT: it had no jail. EBUSY: the kernel has not reaped it yet, and an empty cgroup costs nothing.
    if (!isErrno(error, "ENOENT", "ENOTDIR", "EBUSY", "EACCES", "EPERM", "EROFS")) throw error;
  }
}

/** Only whoever brings a network namespace can publish ports. */
function requireNetwork(config: VmConfig): void {
  if (config.ports.length === 0 || config.network) return;
  throw new MvmError("PORTS_UNSUPPORTED", "this VM has no network, so no port of it can be published", {
    hint: "leave -p out and use `mvmctl forward`, or choose --hypervisor qemu",
  });
}

function requireResume(version: string): void {
  if (firecrackerFeatures(version).resumeKeepsVsock) return;
  throw new MvmError(
    "PAUSE_UNSUPPORTED",
    `Firecracker ${version} can't pause: its guests' agents can't be reached afterwards`,
    {
      hint: "use Firecracker 1.15, or QEMU",
    },
  );
}

function explainEnd(directory: string, cause?: unknown): MvmError {
  const log = readLog(join(directory, HYPERVISOR_LOG));
  const console = readLog(join(directory, CONSOLE_LOG));
  // It says its version as soon as it runs.
  if (!`${log}${console}`.includes("Firecracker")) {
    return new MvmError("VM_START_FAILED", "Firecracker could not be started in a mount namespace of its own", {
      detail: lastLines(log, 5) || "it left no message",
      hint: "run mvmctl as root, or allow user namespaces: sudo sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0",
      cause,
    });
  }
  return vmDied(directory, cause);
}
