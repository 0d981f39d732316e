import assert from "node:assert/strict";
import { mkdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Writable } from "node:stream";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { sha256File } from "../../src/core/digests.ts";
import { messageOf } from "../../src/core/errors.ts";
import type { TemplateName } from "../../src/core/names.ts";
import { resolvePaths } from "../../src/core/paths.ts";
import { run } from "../../src/core/process.ts";
import { findVmProcesses, isAlive, signalProcess } from "../../src/core/process-identity.ts";
import { AgentClient } from "../../src/guest/agent-client.ts";
import type { WakeRequest } from "../../src/guest/agent-types.ts";
import { execInGuest } from "../../src/guest/exec.ts";
import { waitHealthy } from "../../src/guest/health.ts";
import { newIdentity } from "../../src/guest/identity.ts";
import { wakeByGreeting } from "../../src/guest/wake-greeting.ts";
import {
  type Driver,
  HYPERVISORS,
  type PortForward,
  type SnapshotFiles,
  type VmConfig,
  type VmRef,
} from "../../src/hypervisor/driver.ts";
import { driverNamed } from "../../src/hypervisor/drivers.ts";
import { firecrackerFeatures } from "../../src/hypervisor/firecracker-version.ts";
import { requireAlive } from "../../src/hypervisor/require-alive.ts";
import { currentRevision } from "../../src/template/revisions.ts";
import { vmConfigOf } from "../../src/template/vm-config.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { freePort, until } from "../support/wait.ts";

const BOOT_MS = 120_000;
/** QEMU announces a restored guest five times in 1.2 s (its announce-initial, -step and -rounds). */
const ANNOUNCED_MS = 2000;
/** Enough for the image, and it keeps emulated guests small. */
const SIZES = { cpus: 1, memMiB: 256, dataDiskMiB: 0 };

for (const name of HYPERVISORS) {
  describe(`the driver ${name} keeps its promises`, { skip: await whyNotHere(name) }, () => {
    let mvm: Mvmctl;
    let driver: Driver;
    let files: SnapshotFiles;
    const vms: VmRef[] = [];
    before(async () => {
      mvm = useMvmctl();
      driver = driverNamed({ paths: resolvePaths(mvm.env), env: mvm.env }, name);
      await mvm.ok(["template", "create", "hello", "--flake", join(REPOSITORY, "examples", "hello")]);
      await mvm.ok(["template", "build", "hello"]);
      mkdirSync(join(mvm.dataDir, "snapshot"));
      files = {
        vmstate: join(mvm.dataDir, "snapshot", "vmstate.bin"),
        memory: join(mvm.dataDir, "snapshot", "mem.bin"),
      };
    });
    after(async () => {
      for (const vm of vms) await driver.kill(vm);
      mvm[Symbol.dispose]();
    });

    function configOf(vm: string, ports: readonly PortForward[] = []): VmConfig {
      const revision = currentRevision(resolvePaths(mvm.env), "hello" as TemplateName)!;
      const directory = join(mvm.dataDir, vm);
      mkdirSync(directory);
      return vmConfigOf(revision, { directory, dataDisk: undefined, ports }, SIZES);
    }
    /** So that a failing test leaves no VM. */
    async function owned(vm: Promise<VmRef>): Promise<VmRef> {
      vms.push(await vm);
      return vm;
    }

    test("probe says what snapshots of it fit, the same each time", async () => {
      const identity = await driver.probe();
      assert.equal(identity.name, name);
      assert.match(identity.version, /^\d+\.\d+/);
      assert.deepEqual(await driverNamed({ paths: resolvePaths(mvm.env), env: mvm.env }, name).probe(), identity);
    });

    test("a booted VM's agent answers, its console is logged, and a pause stops its clock until it is resumed", async () => {
      const vm = await owned(driver.boot(configOf("booted"), { memoryFile: files.memory }));
      assert.ok(isAlive(vm.process));
      await using client = await connect(driver, vm, BOOT_MS);
      await client.wake(newIdentity("booted", "worker", {}));
      await waitHealthy(client, { deadlineMs: Date.now() + BOOT_MS });
      await output(client, ["sh", "-c", "echo a line of the guest > /dev/console"]);
      const console = driver.logFiles(vm.directory).console;
      await until("the console's log has it", () => readFileSync(console, "utf8").includes("a line of the guest"));

      if (!(await runsOnAfterPause(driver))) return;
      const before = await client.info();
      const paused = performance.now();
      await driver.pause(vm, "resume");
      // A request that was sent to a paused guest is answered when it is resumed, and not before.
      const late = client.info();
      const cpuTime = cpuTicks(vm);
      assert.equal(await Promise.race([late.then(() => "answered"), delay(1500, "silence")]), "silence");
      assert.ok(cpuTicks(vm) - cpuTime <= 20, "its hypervisor computes nothing");
      const pausedMs = performance.now() - paused;
      await driver.resume(vm);
      const guestMs = (await late).uptimeMs - before.uptimeMs;
      assert.ok(guestMs < pausedMs, `${guestMs} ms passed in the guest, and ${pausedMs} ms outside`);
    });

    test("a snapshot is made of a paused VM while a client is in the middle of something", async () => {
      const vm = vms[0]!;
      const client = await connect(driver, vm);
      const heard = counter();
      execInGuest(client, { argv: ["yes"] }, { stdout: heard, stderr: heard }).catch(() => {}); // it ends with its guest
      await until("the guest talks", () => heard.bytes > 0);
      await using other = await connect(driver, vm);
      await other.prepare(60_000);
      await driver.pause(vm, "snapshot");
      await driver.snapshot(vm, files);
      await driver.kill(vm);
      await client[Symbol.asyncDispose]();
      assert.equal(isAlive(vm.process), false);
      assert.deepEqual(findVmProcesses(vm.directory), []);
      assert.ok(statSync(files.vmstate).size > 0);
      assert.equal(statSync(files.memory).size, SIZES.memMiB * 1024 * 1024);
    });

    test("two VMs restored at once from the same files live their own lives, and never write the files", async () => {
      const digests = () => Promise.all([sha256File(files.vmstate), sha256File(files.memory)]);
      const before = await digests();
      const published = [await publish(driver), await publish(driver)];
      const clones = await Promise.all(
        published.map((ports, index) => owned(driver.restore(configOf(`clone-${index}`, ports), files))),
      );
      for (const [index, vm] of clones.entries()) {
        // Answers although another client talked when it was captured.
        await using client = await connect(driver, vm);
        await client.wake(newIdentity(`clone-${index}`, "worker", {}));
        await waitHealthy(client, { deadlineMs: Date.now() + 30_000 });
        await output(client, ["sh", "-c", `echo ${index} > /tmp/mine; dd if=/dev/urandom of=/tmp/much bs=1M count=8`]);
      }
      for (const [index, vm] of clones.entries()) {
        await using client = await connect(driver, vm);
        assert.equal(await output(client, ["cat", "/tmp/mine"]), `${index}\n`);
        assert.equal((await client.info()).hostname, `clone-${index}`);
        for (const { hostPort } of published[index]!) {
          assert.equal((await fetch(`http://127.0.0.1:${hostPort}/`)).status, 200);
        }
      }
      assert.deepEqual(await digests(), before);
    });

    test("a guest that learns who it is late is reached over its network", async (t) => {
      if (!driver.capabilities.userNetwork) return t.skip(`${name} publishes no ports by itself`);
      const ports = [{ hostAddress: "127.0.0.1", hostPort: await freePort(), guestPort: 8080 }];
      const vm = await owned(driver.restore(configOf("late", ports), files));
      // Until then the hypervisor announces the guest by the address it was captured with.
      await delay(ANNOUNCED_MS);
      await using client = await connect(driver, vm);
      await client.wake(newIdentity("late", "worker", {}));
      await waitHealthy(client, { deadlineMs: Date.now() + 30_000 });
      const signal = AbortSignal.timeout(20_000);
      assert.equal((await fetch(`http://127.0.0.1:${ports[0]!.hostPort}/`, { signal })).status, 200);
    });

    test("a guest can be woken by the greeting: it becomes healthy, and takes other clients after that", async (t) => {
      const vm = await owned(driver.restore(configOf("greeted"), files));
      const endpoint = driver.agentEndpoint(vm.directory);
      if (endpoint.kind !== "ports") return t.skip(`${name} has no ports`);
      const wake = (request: Partial<WakeRequest>) => {
        const options = { deadlineMs: Date.now() + 30_000, repeatAfterMs: 1000 };
        return wakeByGreeting(
          endpoint.sockets,
          () => ({ ...newIdentity("greeted", "worker", {}), ...request }),
          options,
        );
      };
      await assert.rejects(wake({ entropy: "?" }), { code: "AGENT_FAILED", message: /refused/ });
      {
        await using client = await connect(driver, vm);
        assert.equal((await client.info()).phase, "prepared", "whoever was not woken stays frozen");
      }
      const long = await wake({ hostname: "h".repeat(60), env: { LONG: "x".repeat(50_000) } });
      assert.equal(await long.settled, "healthy");
      await long[Symbol.asyncDispose]();
      await using short = await wake({});
      assert.equal(await short.settled, "healthy");
      await using client = await connect(driver, vm);
      assert.equal((await client.info()).hostname, "greeted");
      assert.equal(await output(client, ["cat", "/etc/hostname"]), "greeted\n", "nothing is left of the longer name");
    });

    test("kill ends a VM whose process nobody recorded, and what it held is free when it returns", async () => {
      const config = configOf("unrecorded", await publish(driver));
      for (let round = 0; round < 5; round++) {
        const vm = await owned(driver.restore(config, files));
        await driver.kill({ directory: vm.directory });
        assert.equal(isAlive(vm.process), false);
      }
      await driver.kill({ directory: config.directory });
    });

    test("a VM that died is explained by what it left", async () => {
      const vm = await owned(driver.restore(configOf("dead"), files));
      signalProcess(vm.process, "SIGKILL");
      await until("it is gone", () => !isAlive(vm.process));
      const error = driver.explainEnd(vm.directory);
      assert.equal(error.code, "VM_DIED");
      assert.ok(error.detail && error.hint);
      await assert.rejects(driver.pause(vm, "snapshot"), { code: "VM_DIED" });
    });

    test("a published port that is taken is named", async (t) => {
      if (!driver.capabilities.userNetwork) return t.skip(`${name} publishes no ports by itself`);
      const server = createServer();
      const hostPort = await freePort();
      await new Promise<void>((resolve) => server.listen(hostPort, "127.0.0.1", resolve));
      try {
        const config = configOf("port", [{ hostAddress: "127.0.0.1", hostPort, guestPort: 8080 }]);
        const message = new RegExp(`\\b${hostPort}\\b`);
        await assert.rejects(driver.restore(config, files), { code: "PORT_IN_USE", message });
      } finally {
        server.close();
      }
      assert.deepEqual(findVmProcesses(join(mvm.dataDir, "port")), []);
    });

    test("a VM that may not outlive its starter ends with it", async () => {
      const config = configOf("orphan");
      const script = `
        import { driverNamed } from ${JSON.stringify(join(REPOSITORY, "src/hypervisor/drivers.ts"))};
        const paths = { dataDir: ${JSON.stringify(mvm.dataDir)}, cache: ${JSON.stringify(join(mvm.dataDir, "cache"))} };
        const driver = driverNamed({ paths, env: process.env }, ${JSON.stringify(name)});
        const vm = await driver.restore(${JSON.stringify(config)}, ${JSON.stringify(files)}, { dieWithParent: true });
        process.stdout.write(JSON.stringify(vm));
        process.kill(process.pid, "SIGKILL");`;
      const result = await run(process.execPath, ["--input-type=module", "-e", script], { env: mvm.env });
      assert.equal(result.exitCode, 137, result.stderr);
      const vm = JSON.parse(result.stdout) as VmRef;
      vms.push(vm);
      await until("the VM ends too", () => !isAlive(vm.process));
    });
  });
}

/** The guest's port 8080 on a free one of the host, where the hypervisor can do that by itself. */
async function publish(driver: Driver): Promise<PortForward[]> {
  if (!driver.capabilities.userNetwork) return [];
  return [{ hostAddress: "127.0.0.1", hostPort: await freePort(), guestPort: 8080 }];
}

/** Firecracker 1.16's guests do not. */
async function runsOnAfterPause(driver: Driver): Promise<boolean> {
  const { name, version } = await driver.probe();
  return name !== "firecracker" || firecrackerFeatures(version).resumeKeepsVsock;
}

/** Why a driver can't be tried on this machine, or false. */
async function whyNotHere(name: string): Promise<string | false> {
  using scratch = useMvmctl();
  try {
    const driver = driverNamed({ paths: resolvePaths(scratch.env), env: process.env }, name);
    await driver.probe();
    return driver.capabilities.snapshot ? false : `${name} makes no snapshots`;
  } catch (error) {
    return messageOf(error);
  }
}

function connect(driver: Driver, vm: VmRef, timeoutMs = 10_000): Promise<AgentClient> {
  const checkAlive = () => requireAlive(vm, driver);
  return AgentClient.open(driver.agentEndpoint(vm.directory), { deadlineMs: Date.now() + timeoutMs, checkAlive });
}

/** What a command in the guest prints. */
async function output(client: AgentClient, argv: string[]): Promise<string> {
  const chunks: Buffer[] = [];
  const collect = new Writable({ write: (chunk, _, done) => void done(void chunks.push(chunk)) });
  const exitCode = await execInGuest(client, { argv }, { stdout: collect, stderr: counter() });
  assert.equal(exitCode, 0, argv.join(" "));
  return Buffer.concat(chunks).toString();
}

/** Throws away what it is given and counts it. */
function counter(): Writable & { bytes: number } {
  const sink = Object.assign(
    new Writable({
      write: (chunk, _, done) => {
        sink.bytes += chunk.length;
        done();
      },
    }),
    { bytes: 0 },
  );
  return sink;
}

/** CPU time of a hypervisor so far, in hundredths of a second: utime and stime of /proc/PID/stat (proc(5)). */
function cpuTicks(vm: VmRef): number {
  const stat = readFileSync(`/proc/${vm.process.pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
