import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { spawnChecked } from "../../src/core/process.ts";
import { findVmProcesses } from "../../src/core/process-identity.ts";
import { atRandomMoments, durationOf, leftovers } from "../support/kill.ts";
import { LAUNCHER, type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { buildHelloWith } from "../support/template.ts";
import { until } from "../support/wait.ts";

/** A service that says when it comes and when it is asked to go. */
const TALK = `services.talk.command = [ "sh" "-c" "trap 'echo going; exit 0' TERM; echo here; while :; do sleep 1 & wait $!; done" ];`;

interface Foreground {
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly signal: (signal: NodeJS.Signals) => void;
  /** The exit code; 128 + the signal's number is not told apart from it, as a signal gives null. */
  readonly ended: Promise<number | null>;
}

describe("run --foreground", () => {
  let mvm: Mvmctl;
  before(async () => {
    mvm = useMvmctl();
    await buildHelloWith(mvm, "hello", TALK);
  });
  after(() => mvm[Symbol.dispose]());

  async function foreground(name: string, more: readonly string[] = []): Promise<Foreground> {
    const args = [LAUNCHER, "run", "--template", "hello", "--name", name, "--foreground", ...more];
    const child = await spawnChecked(process.execPath, args, { env: mvm.env, stdio: ["ignore", "pipe", "pipe"] });
    const collect = (stream: NodeJS.ReadableStream) => {
      let text = "";
      stream.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      return () => text;
    };
    const [stdout, stderr] = [collect(child.stdout!), collect(child.stderr!)];
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    return { stdout, stderr, ended, signal: (signal) => void child.kill(signal) };
  }
  const running = (vm: Foreground) => until("the service speaks", () => /^talk \| here$/m.test(vm.stdout()), 60_000);
  const listed = async (name: string) =>
    (await mvm.json<{ name: string; state: string; reason?: string }[]>(["ls"])).find((one) => one.name === name);

  for (const [signal, more] of [
    ["SIGTERM", []],
    ["SIGINT", ["--cold"]],
  ] as const) {
    test(`${signal} stops it in order: its services are heard to the end, and the exit code is 0`, async () => {
      const vm = await foreground("svc", more);
      await running(vm);
      assert.equal((await listed("svc"))?.state, "running");
      assert.match(vm.stderr(), signal === "SIGTERM" ? /svc: restored from a snapshot/ : /svc: booted/);
      vm.signal(signal);
      assert.equal(await vm.ended, 0, vm.stderr());
      assert.match(vm.stdout(), /^talk \| going$/m);
      assert.equal((await listed("svc"))?.state, "stopped");
      assert.match(await mvm.ok(["logs", "svc"]), /^talk \| here$.*^talk \| going$/ms);
      assert.deepEqual(findVmProcesses(mvm.dataDir), []);
    });
  }

  test("mvmctl stop from elsewhere ends it with 0", async () => {
    const vm = await foreground("svc");
    await running(vm);
    await mvm.ok(["stop", "svc"]);
    assert.equal(await vm.ended, 0, vm.stderr());
  });

  test("a guest that shuts itself down ends it with 0, and is marked as stopped", async () => {
    const vm = await foreground("svc");
    await running(vm);
    await mvm.run(["exec", "--user", "root", "svc", "--", "busybox", "reboot", "-f"]);
    assert.equal(await vm.ended, 0, vm.stderr());
    assert.equal((await listed("svc"))?.state, "stopped");
  });

  test("a VM that dies ends it with 1 and an error, and is listed as dead", async () => {
    const vm = await foreground("svc");
    await running(vm);
    const [hypervisor] = findVmProcesses(mvm.dataDir);
    process.kill(hypervisor!.pid, "SIGKILL");
    assert.equal(await vm.ended, 1);
    assert.match(vm.stderr(), /error: the VM ended by itself/);
    assert.equal((await listed("svc"))?.state, "dead");
  });

  test("a guest whose kernel panics has died, too", async () => {
    const vm = await foreground("svc");
    await running(vm);
    await mvm.run(["exec", "--user", "root", "svc", "--", "sh", "-c", "echo c >/proc/sysrq-trigger"], {
      timeoutMs: 60_000,
    });
    assert.equal(await vm.ended, 1, vm.stderr());
    assert.match(vm.stderr(), /error: the VM ended by itself: its kernel panicked: sysrq triggered crash\n/);
  });

  test("no VM outlives a command that is killed, and the name can be used again", async () => {
    const vm = await foreground("svc");
    await running(vm);
    assert.equal(findVmProcesses(mvm.dataDir).length, 1);
    vm.signal("SIGKILL");
    await vm.ended;
    await until("the VM is gone", () => findVmProcesses(mvm.dataDir).length === 0);
    assert.equal((await listed("svc"))?.state, "dead");
  });

  test("killed at any moment of its start, it leaves no VM, and nothing that the doctor does not remove", async () => {
    const run = (name: string) => ["run", "--template", "hello", "--name", name];
    const toMs = await durationOf(mvm, run("measured"));
    await mvm.ok(["rm", "--force", "measured"]);
    await atRandomMoments(mvm, { count: 20, toMs: 1.2 * toMs }, async (kill, index) => {
      const name = `killed-${index}`;
      await kill([...run(name), "--foreground"]);
      await until("no VM is left", () => findVmProcesses(mvm.dataDir).length === 0);
      const { checks } = await mvm.json<{ checks: { subject: string; state: string; mend?: string }[] }>(["doctor"]);
      const wrong = checks.filter(({ subject, state }) => state !== "ok" && subject.startsWith("instance killed"));
      for (const { mend } of wrong) assert.match(mend ?? "", /mvmctl rm killed-/);
      await mvm.run(["rm", "--force", name]);
      assert.deepEqual(leftovers(mvm.dataDir), []);
    });
  });

  test("told to stop while it starts, it leaves nothing and ends with 0", async () => {
    const vm = await foreground("early", ["--cold"]);
    await until("the VM is started", () => findVmProcesses(mvm.dataDir).length === 1);
    vm.signal("SIGTERM");
    assert.equal(await vm.ended, 0, vm.stderr());
    assert.equal(await listed("early"), undefined);
    assert.deepEqual(findVmProcesses(mvm.dataDir), []);
  });

  test("it is one or the other: in the foreground, or detached", async () => {
    const args = ["run", "--template", "hello", "--foreground", "--detach"];
    assert.match(await mvm.fails(args, "USAGE"), /--foreground and --detach/);
  });
});
