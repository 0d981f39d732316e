import {
  chownSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { fileError, isErrno, MvmError } from "../core/errors.ts";
import { findProgram, run } from "../core/process.ts";
import { isAlive } from "../core/process-identity.ts";
import { lastLines } from "../core/text.ts";
import { connectUnix } from "../core/unix-socket.ts";
import type { Driver, SnapshotFiles, StartOptions, VmConfig, VmRef } from "./driver.ts";
import type { FirecrackerApi } from "./firecracker-api.ts";
import { bindsOf, describeMachine, kernelBinds, snapshotToLoad } from "./firecracker-machine.ts";
import { type Bind, confinedCommand, INSIDE, jailCgroup, jailerBeside, jailId } from "./firecracker-namespace.ts";
import { FIRECRACKER_INSTALL_HINT, type FirecrackerFacts, probeFirecracker } from "./firecracker-probe.ts";
import { firecrackerFeatures } from "./firecracker-version.ts";
import { hasEnded, killVm, parentDeathPrefix, readLog, startVmProcess } from "./vm-process.ts";

const CONSOLE_LOG = "console.log";
const HYPERVISOR_LOG = "hypervisor.log";
/** The directory of a VM that Firecracker sees: its sockets. */
const RUN = "run";
/** Where its root is made, in a mount namespace; empty for everybody else. */
const ROOT = "root";
const AGENT_PORT = 52;

/** From starting its process, through the namespace's mounts, to an open control socket. */
const CONTROL_TIMEOUT_MS = 5000;
/** Looking for zeros in a memory of 32 GiB. */
const DIG_TIMEOUT_MS = 120_000;

/** Firecracker on KVM. */
export function createFirecrackerDriver(host: { cacheDir: string; env: NodeJS.ProcessEnv }): Driver {
  let facts: Promise<FirecrackerFacts> | undefined;
  const probe = (signal?: AbortSignal) => {
    facts ??= probeFirecracker(host.cacheDir, host.env, signal);
    return facts;
  };

  async function start(config: VmConfig, binds: readonly Bind[], options: StartOptions): Promise<VmRef> {
    requireNetwork(config);
    const { binary } = await probe();
    const { directory } = config;
    const ownFiles = makeOwnFiles(directory);
    const jail = options.jail && { ...options.jail, jailer: findJailer(binary, host.env), id: jailId(directory) };
    if (jail) giveTo(jail, [...ownFiles, ...(config.dataDisk ? [config.dataDisk] : [])]);
    const command = confinedCommand({
      mountPoint: join(directory, ROOT),
      binds: [...bindsOf(config), ...binds, ...ownBinds(directory), ...(jail ? [] : deviceBinds(config))],
      binary,
      args: ["--api-sock", INSIDE.api],
      unprivileged: process.getuid?.() !== 0,
      jail,
    });
    const network = config.network ? ["nsenter", `--net=${config.network.netns}`, "--"] : [];
    return startVmProcess({
      directory,
      command: [...network, ...parentDeathPrefix(options, host.env), ...command],
      env: host.env,
      log: CONSOLE_LOG,
      sockets: [join(RUN, "api.sock"), join(RUN, "v.sock")],
      installHint: FIRECRACKER_INSTALL_HINT,
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
        checkAlive: () => {
          if (!isAlive(vm.process)) throw explainEnd(vm.directory);
        },
      }),
      import("./firecracker-api.ts"), // it brings HTTP, which other commands need not load
    ]);
    using api = new FirecrackerApi(socket);
    return await use(api);
  } catch (error) {
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

/** What Firecracker writes, in the VM's directory. */
function makeOwnFiles(directory: string): string[] {
  const paths = [join(directory, RUN), join(directory, HYPERVISOR_LOG)] as const;
  try {
    for (const name of [RUN, ROOT]) mkdirSync(join(directory, name), { recursive: true });
  } catch (error) {
    throw fileError(error, directory, "create the directory");
  }
  makeEmpty(paths[1]);
  return [...paths];
}

function ownBinds(directory: string): Bind[] {
  return [
    { from: join(directory, RUN), at: "/run", writable: true },
    { from: join(directory, HYPERVISOR_LOG), at: INSIDE.log, writable: true },
  ];
}

function deviceBinds(config: VmConfig): Bind[] {
  const devices = config.network ? ["/dev/kvm", "/dev/net/tun"] : ["/dev/kvm"];
  return devices.map((path) => ({ from: path, at: path, writable: true }));
}

function makeEmpty(path: string): void {
  try {
    closeSync(openSync(path, "w", 0o644));
  } catch (error) {
    throw fileError(error, path, "create");
  }
}

function giveTo({ uid, gid }: { uid: number; gid: number }, paths: readonly string[]): void {
  for (const path of paths) {
    try {
      chownSync(path, uid, gid);
    } catch (error) {
      throw new MvmError("JAIL_NEEDS_ROOT", "only root can put a VM into a jail", {
        hint: "run mvmctl as root, or leave --jail out: Firecracker sees nothing but its VM's files anyway",
        cause: error,
      });
    }
  }
}

function findJailer(binary: string, env: NodeJS.ProcessEnv): string {
  const found = findProgram(jailerBeside(binary), env) ?? findProgram("jailer", env);
  if (found) return found;
  throw new MvmError("PROGRAM_MISSING", `there is no jailer beside ${binary}, nor on the PATH`, {
    hint: "it comes with Firecracker's release: put it beside the firecracker program",
  });
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

/** Firecracker before its version after 1.16 boots uncompressed kernels only, and says little when it gets another. */
function requireElf(kernel: string): void {
  const magic = Buffer.alloc(4);
  try {
    const fd = openSync(kernel, "r");
    try {
      readSync(fd, magic);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fileError(error, kernel, "read");
  }
  if (magic.equals(Buffer.from("\x7fELF", "latin1"))) return;
  throw new MvmError("KERNEL_UNSUPPORTED", `Firecracker boots no compressed kernel, and ${kernel} is no ELF file`, {
    hint: "let the image have a vmlinux instead of a bzImage (mkGuest does), or choose --hypervisor qemu",
  });
}

function move(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (!isErrno(error, "EXDEV")) throw fileError(error, to, "write");
    copyFileSync(from, to);
    rmSync(from);
  }
}

/** Firecracker writes pages of zeros too; a file system keeps them as holes. Without fallocate(1) the file is only larger. */
async function digHoles({ memory }: SnapshotFiles, env: NodeJS.ProcessEnv): Promise<void> {
  if (!findProgram("fallocate", env)) return;
  await run("fallocate", ["--dig-holes", memory], { timeoutMs: DIG_TIMEOUT_MS });
}

function explainEnd(directory: string, cause?: unknown): MvmError {
  const log = readLog(join(directory, HYPERVISOR_LOG));
  const console = readLog(join(directory, CONSOLE_LOG));
  return new MvmError("VM_DIED", "the VM ended by itself", {
    detail: [lastLines(log, 5), lastLines(console, 15)].filter(Boolean).join("\n") || "it left no message",
    hint: "if the guest ran out of memory, give it more with --mem",
    cause,
  });
}
