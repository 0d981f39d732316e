import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Writable } from "node:stream";
import { after, before, describe, test } from "node:test";
import { parseTemplateName } from "../../src/core/names.ts";
import { resolvePaths } from "../../src/core/paths.ts";
import { findProgram, spawnChecked } from "../../src/core/process.ts";
import { findVmProcesses, identify, VM_DIRECTORY_VARIABLE } from "../../src/core/process-identity.ts";
import type { AgentClient } from "../../src/guest/agent-client.ts";
import { execInGuest } from "../../src/guest/exec.ts";
import { bootAndConnect } from "../../src/guest/first-contact.ts";
import { newIdentity } from "../../src/guest/identity.ts";
import { type StartedNetwork, startNetwork } from "../../src/host/network.ts";
import type { VmConfig, VmRef } from "../../src/hypervisor/driver.ts";
import { createQemuDriver } from "../../src/hypervisor/qemu.ts";
import { qemuArguments } from "../../src/hypervisor/qemu-arguments.ts";
import { probeQemu } from "../../src/hypervisor/qemu-probe.ts";
import { currentRevision } from "../../src/template/revisions.ts";
import { vmConfigOf } from "../../src/template/vm-config.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { HERE, OUTSIDE, type Outside, PORT, startOutside } from "../support/outside.ts";
import { freePort, until } from "../support/wait.ts";

const skip =
  process.getuid?.() !== 0
    ? "needs root: it makes a second machine to connect to"
    : findProgram("slirp4netns", process.env)
      ? false
      : "needs slirp4netns";

// Firecracker is the hypervisor that needs taps, and nothing runs it without KVM. QEMU takes one as well, with a real guest behind.
describe("a real guest behind a tap, in a network of its own", { skip }, () => {
  let mvm: Mvmctl;
  let outside: Outside;
  before(async () => {
    mvm = useMvmctl();
    outside = await startOutside();
    await mvm.ok(["template", "create", "hello", "--flake", join(REPOSITORY, "examples", "hello")]);
    await mvm.ok(["template", "build", "hello"]);
  });
  after(() => {
    outside?.[Symbol.dispose]();
    mvm[Symbol.dispose]();
  });

  test("is reached through its published port, reaches the outside, and neither metadata nor the host", async () => {
    const hostPort = await freePort();
    const directory = mkdtempSync(join(mvm.dataDir, "tap-"));
    const revision = currentRevision(resolvePaths(mvm.env), parseTemplateName("hello"))!;
    const config = vmConfigOf(
      revision,
      { directory, dataDisk: undefined, ports: [] },
      { cpus: 1, memMiB: 256, dataDiskMiB: 0 },
    );
    const forwards = [{ hostAddress: "127.0.0.1", hostPort, guestPort: 8080 }];
    let network: StartedNetwork | undefined;
    const { vm, client } = await bootAndConnect({
      boot: async () => {
        await network?.stop();
        network = await startNetwork({ directory, forwards, env: process.env });
        return await bootOnTap(config, network);
      },
      driver: createQemuDriver({ cacheDir: join(mvm.dataDir, "cache"), env: process.env }),
      directory,
      deadlineMs: Date.now() + 120_000,
      signal: new AbortController().signal,
      onRetry: () => {},
    });
    network!.release();
    await client.wake(newIdentity("tap", "worker", {}));
    assert.equal((await client.health(60_000)).status, "healthy");

    const page = await until("the published port answers", async () =>
      (await fetch(`http://127.0.0.1:${hostPort}/`)).text(),
    );
    assert.match(page, /<html|hello/i);
    assert.equal(await shell(client, `nc -w 10 ${OUTSIDE} ${PORT} </dev/null`), "the outside");
    const host = createServer((socket) => socket.end("the host\n")).unref();
    await new Promise<void>((resolve) => host.listen(PORT, "0.0.0.0", resolve));
    for (const address of ["169.254.169.254", HERE, "10.0.2.2"])
      assert.doesNotMatch(
        await shell(client, `nc -w 5 ${address} ${PORT} </dev/null 2>&1; echo "exit $?"`),
        /exit 0|the host/,
      );
    host.close();

    await client[Symbol.asyncDispose]();
    process.kill(vm.process.pid, "SIGKILL");
    await until("the network ends with QEMU", () => findVmProcesses(directory).length === 0, 5000);
  });
});

/** QEMU as our driver starts it, but for the network card. */
async function bootOnTap(config: VmConfig, network: StartedNetwork): Promise<VmRef> {
  const host = await probeQemu(join(config.directory, "cache"), process.env);
  const user = "user,id=net0,ipv6=off";
  const tap = `tap,id=net0,ifname=${network.tap},script=no,downscript=no`;
  const args = qemuArguments(config, host, { kind: "anonymous" }, undefined);
  assert.ok(args.includes(user));
  const [program, ...rest] = [...network.prefix, host.binary, ...args.map((arg) => (arg === user ? tap : arg))];
  const log = openSync(join(config.directory, "hypervisor.log"), "a");
  const child = await spawnChecked(program!, rest, {
    cwd: config.directory,
    env: { ...process.env, [VM_DIRECTORY_VARIABLE]: config.directory },
    stdio: [network.lifeline, log, log],
    detached: true,
  });
  closeSync(log);
  child.unref();
  return { directory: config.directory, process: identify(child.pid!)! };
}

async function shell(client: AgentClient, script: string): Promise<string> {
  let said = "";
  const stdout = new Writable({
    write: (chunk, _encoding, done) => {
      said += chunk;
      done();
    },
  });
  await execInGuest(client, { argv: ["sh", "-c", script], user: "root" }, { stdout, stderr: stdout });
  return said.trim();
}
