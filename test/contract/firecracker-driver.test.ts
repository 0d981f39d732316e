import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { before, test } from "node:test";
import { allocatedBytes } from "../../src/core/disk-usage.ts";
import { findProgram, run, spawnChecked } from "../../src/core/process.ts";
import { findVmProcesses, isAlive, signalProcess } from "../../src/core/process-identity.ts";
import { MiB } from "../../src/core/sizes.ts";
import { startInNetwork } from "../../src/host/network.ts";
import type { SnapshotFiles, VmConfig, VmRef } from "../../src/hypervisor/driver.ts";
import { jailerBeside } from "../../src/hypervisor/firecracker-jail.ts";
import { confinedCommand } from "../../src/hypervisor/firecracker-namespace.ts";
import { firecrackerFeatures } from "../../src/hypervisor/firecracker-version.ts";
import { type FirecrackerVms, useFirecrackerVms, whyNoFirecrackerGuests } from "../support/firecracker-vm.ts";
import { findFirecracker } from "../support/real-firecracker.ts";
import { freePort, until } from "../support/wait.ts";

/** The driver with a real Firecracker, and guests of a few instructions: they run on KVMs that no kernel would boot on. */

const skip = await whyNoFirecrackerGuests();
const isRoot = process.getuid?.() === 0;

const runsOn = (vms: FirecrackerVms, config: ReturnType<FirecrackerVms["config"]>, from = 0) =>
  until("the guest runs", () => vms.ticks(config) > from + 2);

/** Captures a VM that has run for a while. */
async function capture(vms: FirecrackerVms, more: Partial<VmConfig> = {}): Promise<SnapshotFiles> {
  const config = { ...vms.config("template"), ...more };
  const snapshot = join(vms.root, "snapshot");
  mkdirSync(snapshot);
  const files = { vmstate: join(snapshot, "vmstate.bin"), memory: join(snapshot, "mem.bin") };
  const vm = await vms.driver.boot(config, { memoryFile: files.memory });
  await runsOn(vms, config);
  await vms.driver.pause(vm, "snapshot");
  await vms.driver.snapshot(vm, files);
  await vms.driver.kill(vm);
  return files;
}

/** What a VM's processes see as their root. */
const insideOf = (vm: VmRef) => readdirSync(`/proc/${vm.process.pid}/root`).sort();

before(() => {
  if (!skip) assert.ok(findFirecracker());
});

test("a VM boots, is found by its directory alone, and is gone when it was killed", { skip }, async () => {
  using vms = await useFirecrackerVms();
  const config = vms.config("a");
  const vm = await vms.driver.boot(config);
  await runsOn(vms, config);
  assert.deepEqual(findVmProcesses(config.directory), [vm.process]);
  assert.match(readFileSync(vms.driver.logFiles(config.directory).hypervisor, "utf8"), /InstanceStart/);
  await vms.driver.kill({ directory: config.directory });
  assert.ok(!isAlive(vm.process));
  assert.deepEqual(findVmProcesses(vms.root), []);
});

test("a VM sees nothing of the host but its own files", { skip }, async () => {
  using vms = await useFirecrackerVms();
  const vm = await vms.driver.boot(vms.config("a"));
  assert.deepEqual(insideOf(vm), ["dev", "firecracker", "hypervisor.log", "run", "vm"]);
  assert.deepEqual(readdirSync(`/proc/${vm.process.pid}/root/vm`).sort(), ["kernel", "rootfs"]);
  const mounts = readFileSync(`/proc/${vm.process.pid}/mountinfo`, "utf8");
  assert.match(mounts, /\/vm\/rootfs ro,/);
  assert.ok(!readFileSync("/proc/self/mountinfo", "utf8").includes(vms.root), "the host sees none of its mounts");
  const status = readFileSync(`/proc/${vm.process.pid}/status`, "utf8");
  assert.match(status, /^CapEff:\t0{11}40000$/m, "of root's capabilities it has CAP_SYS_CHROOT (18) alone");
  await vms.driver.kill(vm);
});

test("clones of one snapshot run side by side; its memory is kept sparse and never written", { skip }, async () => {
  using vms = await useFirecrackerVms();
  const files = await capture(vms);
  assert.equal(statSync(files.memory).size, 64 * MiB);
  assert.ok(allocatedBytes(statSync(files.memory)) < 8 * MiB, `${allocatedBytes(statSync(files.memory))} bytes`);
  for (const file of Object.values(files)) await run("chmod", ["0444", file]);
  const original = readFileSync(files.memory);
  const configs = [vms.config("b"), vms.config("c")];
  const clones = await Promise.all(configs.map((config) => vms.driver.restore(config, files)));
  for (const config of configs) await runsOn(vms, config);
  assert.deepEqual(insideOf(clones[0]!), ["dev", "firecracker", "hypervisor.log", "run", "vm"]);
  for (const clone of clones) await vms.driver.kill(clone);
  assert.ok(readFileSync(files.memory).equals(original));
});

test("a paused VM stands still and runs on, where the version can", { skip }, async () => {
  using vms = await useFirecrackerVms();
  const config = vms.config("a");
  const vm = await vms.driver.boot(config);
  await runsOn(vms, config);
  if (firecrackerFeatures(vms.version).resumeKeepsVsock) {
    await vms.driver.pause(vm, "resume");
    const before = vms.ticks(config);
    await vms.driver.resume(vm);
    await runsOn(vms, config, before);
  } else {
    await assert.rejects(vms.driver.pause(vm, "resume"), { code: "PAUSE_UNSUPPORTED", message: /agents/ });
  }
  await vms.driver.kill(vm);
});

test("a snapshot that can't be loaded is an error with Firecracker's reason, and leaves no VM", { skip }, async () => {
  using vms = await useFirecrackerVms();
  const files = await capture(vms);
  truncateSync(files.vmstate, 1000);
  const config = vms.config("b");
  const refused = { code: "HYPERVISOR_REFUSED", message: /'PUT \/snapshot\/load': .*[Ss]napshot/ };
  await assert.rejects(vms.driver.restore(config, files), refused);
  assert.deepEqual(findVmProcesses(vms.root), []);
});

test("a namespace that can't be made is an error with what mends it", { skip }, async () => {
  using vms = await useFirecrackerVms();
  const config = vms.config("a");
  const rootfs = { path: join(vms.root, "nothing"), type: "erofs" };
  const failed = { code: "VM_START_FAILED", detail: /mount: .*nothing/, hint: /as root/ };
  await assert.rejects(vms.driver.boot({ ...config, rootfs }), failed);
  assert.deepEqual(findVmProcesses(vms.root), []);
});

test("a compressed kernel is refused before anything starts", { skip }, async () => {
  using vms = await useFirecrackerVms();
  const kernel = join(vms.root, "bzImage");
  writeFileSync(kernel, Buffer.alloc(4096));
  const refused = { code: "KERNEL_UNSUPPORTED", message: /no ELF file/, hint: /vmlinux/ };
  await assert.rejects(vms.driver.boot({ ...vms.config("a"), kernel }), refused);
});

test("a published port without a network is refused", { skip }, async () => {
  using vms = await useFirecrackerVms();
  const ports = [{ hostAddress: "127.0.0.1", hostPort: 1, guestPort: 1 }];
  const refused = { code: "PORTS_UNSUPPORTED", hint: /mvmctl forward/ };
  await assert.rejects(vms.driver.boot({ ...vms.config("a"), ports }), refused);
});

const noTap = skip || (isRoot && findProgram("ip", process.env) ? false : "making a tap needs root and ip(8)");

test("a VM runs in the network namespace it is given, with the tap in it, and so does its clone", {
  skip: noTap,
}, async () => {
  using vms = await useFirecrackerVms();
  const netns = `mvm-test-${process.pid}`;
  const ip = async (...args: string[]) => assert.equal((await run("ip", args)).exitCode, 0, args.join(" "));
  await ip("netns", "add", netns);
  try {
    await ip("netns", "exec", netns, "ip", "tuntap", "add", "tap7", "mode", "tap");
    const path = `/run/netns/${netns}`;
    const network = { netns: path, tap: "tap7", guestMac: "06:00:00:00:00:01", guestAddress: "10.0.2.15/24" };
    const files = await capture(vms, { network });
    const clone = await vms.driver.restore({ ...vms.config("b"), network }, files);
    assert.equal(statSync(`/proc/${clone.process.pid}/ns/net`).ino, statSync(path).ino);
    // A tap is one process's: who asks for it too is told so.
    await assert.rejects(vms.driver.restore({ ...vms.config("c"), network }, files), { message: /tap7|busy/i });
    await vms.driver.kill(clone);
  } finally {
    await ip("netns", "del", netns);
  }
});

test("the network that a VM is started in ends with it, and its clones have one each", {
  skip: noTap || (findProgram("slirp4netns", process.env) ? false : "needs slirp4netns"),
}, async () => {
  using vms = await useFirecrackerVms();
  const { driver } = vms;
  const memory = join(vms.root, "mem.bin");
  const vmstate = join(vms.root, "vmstate.bin");
  const options = { env: process.env };
  const captured = await startInNetwork(vms.config("a"), options, (config) =>
    driver.boot(config, { memoryFile: memory }),
  );
  await driver.pause(captured, "snapshot");
  await driver.snapshot(captured, { vmstate, memory });
  await driver.kill(captured);
  const clones = [];
  for (const [index, name] of ["b", "c"].entries()) {
    const hostPort = await freePort();
    const ports = [{ hostAddress: "127.0.0.1", hostPort, guestPort: 80 }];
    const start = (config: VmConfig) => driver.restore(config, { vmstate, memory });
    clones.push(await startInNetwork({ ...vms.config(name), ports }, options, start));
    // Somebody takes connections for the guest, although this one has nobody to answer.
    await until("the port is published", () => connects(hostPort));
    assert.ok(isAlive(clones[index]!.process));
  }
  for (const clone of clones) {
    signalProcess(clone.process, "SIGKILL");
    await until("its network ends with it", () => findVmProcesses(clone.directory).length === 0);
  }
});

test("another user than root runs it in a namespace too", {
  skip: skip || (isRoot ? false : "needs root"),
}, async () => {
  using vms = await useFirecrackerVms();
  const binary = findFirecracker()!;
  for (const name of ["root", "run"]) mkdirSync(join(vms.root, name));
  const binds = [
    { from: join(vms.root, "run"), at: "/run", writable: true },
    { from: "/dev/shm", at: "/vm/shm", writable: false },
  ];
  const confined = {
    mountPoint: join(vms.root, "root"),
    binds,
    binary,
    args: ["--version"],
    opensTap: false,
    unprivileged: true,
  };
  await run("chown", ["-R", "65534:65534", vms.root]);
  const nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
  const result = await run("setpriv", [...nobody, ...confinedCommand(confined)]);
  assert.match(`${result.stdout}${result.stderr}`, new RegExp(`Firecracker v${vms.version}`));
});

const jailer = skip ? undefined : findProgram(jailerBeside(findFirecracker()!), process.env);
const noJail = skip || (isRoot ? (jailer ? false : "there is no jailer beside Firecracker") : "the jailer needs root");

test("the jailer runs a VM as its own user, and nothing of it is left", { skip: noJail }, async () => {
  using vms = await useFirecrackerVms();
  const config = vms.config("a");
  const jail = { uid: 1_900_000_001, gid: 1_900_000_001, cgroup: {} };
  const vm = await vms.driver.boot(config, { jail });
  await runsOn(vms, config);
  const processes = findVmProcesses(config.directory);
  const { stdout } = await run("ps", ["-o", "pid=,comm=", "-u", String(jail.uid)]);
  assert.match(stdout, /^ *\d+ (firecracker|exe)/);
  const jailed = Number(stdout.trim().split(" ")[0]);
  assert.ok(!existsSync(`/proc/${jailed}/root/etc`));
  assert.ok(processes.some(({ pid }) => pid === vm.process.pid));
  await vms.driver.kill({ directory: config.directory });
  await until("the jailed process ends", () => !existsSync(`/proc/${jailed}`));
  assert.deepEqual(readdirSync(join(config.directory, "root")), []);
});

const v2 = existsSync("/sys/fs/cgroup/cgroup.controllers");

test("limits without cgroup v2 are refused, with what to do", {
  skip: noJail || (v2 && "cgroup v2 is here"),
}, async () => {
  using vms = await useFirecrackerVms();
  const jail = { uid: 1_900_000_001, gid: 1_900_000_001, cgroup: { "memory.max": "100000000" } };
  const refused = { code: "JAIL_UNSUPPORTED", message: /cgroup v2.*memory/, hint: /leave --jail out/ };
  await assert.rejects(vms.driver.boot(vms.config("a"), { jail }), refused);
  assert.deepEqual(findVmProcesses(vms.root), []);
});

for (const jailed of [false, true]) {
  const title = `a temporary VM ends with the process that started it, ${jailed ? "in a jail" : "without a jail"}`;
  test(title, { skip: jailed ? noJail : skip }, async () => {
    using vms = await useFirecrackerVms();
    const jail = { uid: 1_900_000_001, gid: 1_900_000_001, cgroup: {} };
    const options = { dieWithParent: true, ...(jailed ? { jail } : {}) };
    const support = new URL("../support/firecracker-vm.ts", import.meta.url).href;
    const source = `
      const { driverIn } = await import(${JSON.stringify(support)});
      await driverIn(${JSON.stringify(vms.root)}).boot(${JSON.stringify(vms.config("a"))}, ${JSON.stringify(options)});
      process.stdout.write("started");
      setInterval(() => {}, 1000);`;
    const child = await spawnChecked(process.execPath, ["--input-type=module", "-e", source], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout!, "data");
    const running = findVmProcesses(vms.root);
    assert.ok(running.length > 0);
    child.kill("SIGKILL");
    await until("the VM ends", () => findVmProcesses(vms.root).length === 0 && !running.some(isAlive));
    if (jailed) assert.equal((await run("ps", ["-o", "pid=", "-u", String(jail.uid)])).stdout, "");
  });
}

function connects(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => resolve(true));
    socket.on("error", () => resolve(false));
    socket.on("connect", () => socket.destroy());
  });
}
