import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseInstanceName } from "../../src/core/names.ts";
import { resolvePaths } from "../../src/core/paths.ts";
import { run } from "../../src/core/process.ts";
import { findVmProcesses, isAlive } from "../../src/core/process-identity.ts";
import { instanceStatus } from "../../src/instance/records.ts";
import { atRandomMoments, durationOf, leftovers, requireSound } from "../support/kill.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { buildExample, shell, start } from "../support/template.ts";
import { freePort, until } from "../support/wait.ts";

describe("starting instances, and what can go wrong", () => {
  let mvm: Mvmctl;
  before(async () => {
    mvm = useMvmctl();
    await buildExample(mvm, "hello", ["--mem", "256"]);
  });
  after(() => mvm[Symbol.dispose]());

  test("a port in use is named, and nothing is left", async () => {
    const port = await freePort();
    const server = createServer().listen(port, "127.0.0.1");
    const text = await mvm.fails(["run", "--template", "hello", "--name", "busy", "-p", `${port}:8080`], "PORT_IN_USE");
    server.close();
    assert.match(text, new RegExp(`port ${port}`));
    assert.deepEqual(await mvm.json(["ls"]), []);
  });

  test("of two runs with one name exactly one gets it", async () => {
    const attempts = await Promise.all(
      [1, 2].map(() => mvm.run(["run", "--template", "hello", "--name", "twin", "--json"])),
    );
    assert.deepEqual(attempts.map(({ exitCode }) => exitCode).sort(), [0, 1]);
    assert.match(attempts.find(({ exitCode }) => exitCode === 1)!.stderr, /INSTANCE_EXISTS/);
    assert.equal(findVmProcesses(mvm.dataDir).length, 1);
    await mvm.ok(["rm", "--force", "twin"]);
  });

  test("of two runs of a stopped instance one gets it, with its data disk, and a kill -9 on the way does not cost it", async () => {
    const again = ["run", "--template", "hello", "--name", "kept"];
    await mvm.ok([...again, "--data-disk", "64"]);
    await shell(mvm, "kept", "echo precious > /mnt/data/file; sync");
    await mvm.ok(["stop", "kept"]);
    const toMs = await durationOf(mvm, again);
    await atRandomMoments(mvm, { count: 4, toMs }, async (kill) => {
      await mvm.ok(["stop", "kept"]);
      await kill(again);
      await mvm.run(["stop", "kept"]);
      const attempts = await Promise.all([1, 2].map(() => mvm.run([...again, "--json"])));
      assert.deepEqual(attempts.map(({ exitCode }) => exitCode).sort(), [0, 1]);
      assert.match(attempts.find(({ exitCode }) => exitCode === 1)!.stderr, /INSTANCE_EXISTS/);
      assert.equal(findVmProcesses(mvm.dataDir).length, 1);
      assert.match(await shell(mvm, "kept", "cat /mnt/data/file"), /precious/);
    });
    await mvm.ok(["rm", "--force", "kept"]);
  });

  test("kill -9 of run at any moment: the next ls, doctor or run ends the VM that nobody knows, and the name can be used", async () => {
    const paths = resolvePaths(mvm.env);
    const run = ["run", "--template", "hello", "--name", "killed"];
    const toMs = await durationOf(mvm, run);
    await mvm.ok(["rm", "--force", "killed"]);
    await atRandomMoments(mvm, { count: 24, toMs }, async (kill, index) => {
      await kill(run);
      // Killed when all was done but the last words, it leaves a VM that is to stay.
      const isUp = instanceStatus(paths, parseInstanceName("killed"))?.state === "running";
      const next = [["ls"], ["doctor"], run][index % 3]!;
      const { exitCode, stderr } = await mvm.run(next);
      assert.equal(exitCode, next === run && isUp ? 1 : 0, stderr);
      const vms = isUp || next === run ? 1 : 0;
      await until(`${vms} VM is left`, () => findVmProcesses(mvm.dataDir).length === vms);
      assert.deepEqual(leftovers(paths.instances), []);
      if (existsSync(join(paths.instances, "killed"))) await mvm.ok(["rm", "--force", "killed"]);
      assert.deepEqual(findVmProcesses(mvm.dataDir), []);
      await requireSound(mvm);
    });
  });

  test("an instance whose starter was killed shows as dead, and its name can be used again", async () => {
    const restored = start(mvm, "hello", "again");
    await restored;
    const record = join(mvm.dataDir, "instances", "again", "instance.json");
    const document = JSON.parse(readFileSync(record, "utf8"));
    writeFileSync(
      record,
      JSON.stringify({ ...document, state: "starting", starter: { ...document.starter, startTime: "1" } }),
    );
    const [only] = await mvm.json<{ state: string; reason: string }[]>(["ls"]);
    assert.equal(only?.state, "dead");
    assert.match(only?.reason ?? "", /killed/);
    assert.equal((await start(mvm, "hello", "again")).start, "restored");
    assert.equal(findVmProcesses(mvm.dataDir).length, 1);
    await mvm.ok(["rm", "--force", "again"]);
  });

  test("a recorded process that is somebody else's by now is never killed", async () => {
    await start(mvm, "hello", "reused");
    await mvm.ok(["stop", "reused"]);
    const record = join(mvm.dataDir, "instances", "reused", "instance.json");
    const document = JSON.parse(readFileSync(record, "utf8"));
    const other = { pid: process.pid, startTime: "1", bootId: document.starter.bootId };
    writeFileSync(record, JSON.stringify({ ...document, state: "running", process: other }));
    assert.equal((await mvm.json<{ state: string }[]>(["ls"]))[0]?.state, "dead");
    await mvm.ok(["rm", "--force", "reused"]);
    assert.ok(
      isAlive({
        pid: process.pid,
        startTime: readFileSync("/proc/self/stat", "latin1").split(") ")[1]!.split(" ")[19]!,
        bootId: document.starter.bootId,
      }),
    );
  });

  test("a damaged instance.json breaks only its own instance", async () => {
    await start(mvm, "hello", "good");
    mkdirSync(join(mvm.dataDir, "instances", "bad"));
    writeFileSync(join(mvm.dataDir, "instances", "bad", "instance.json"), "{");
    const states = await mvm.json<{ name: string; state: string; reason?: string }[]>(["ls"]);
    assert.deepEqual(
      states.map(({ name, state }) => [name, state]),
      [
        ["bad", "broken"],
        ["good", "running"],
      ],
    );
    assert.match(states[0]?.reason ?? "", /instance\.json/);
    await mvm.ok(["rm", "--force", "bad", "good"]);
  });

  test("a snapshot of another hypervisor version is not used, and run says which", async () => {
    const snapshots = join(mvm.dataDir, "templates/hello/revisions");
    const file = readdirSync(snapshots, { recursive: true, encoding: "utf8" }).find((path) =>
      path.endsWith("snapshot.json"),
    )!;
    const text = readFileSync(join(snapshots, file), "utf8");
    writeFileSync(
      join(snapshots, file),
      text.replace(/"version": "7[^"]*"/, '"version": "6.0.0"').replace(/"version": "[89][^"]*"/, '"version": "6.0.0"'),
    );
    const started = await start(mvm, "hello", "old");
    writeFileSync(join(snapshots, file), text);
    assert.equal(started.start, "booted");
    assert.match(started.coldBootReason ?? "", /hypervisor version is 6\.0\.0 there/);
    await mvm.ok(["rm", "--force", "old"]);
  });

  test("a hypervisor that hangs is an error in time, and can be removed", async () => {
    await start(mvm, "hello", "stuck");
    const [vm] = findVmProcesses(mvm.dataDir);
    process.kill(vm!.pid, "SIGSTOP");
    await mvm.ok(["stop", "stuck", "--timeout", "2"]);
    assert.equal(isAlive(vm!), false);
    await mvm.ok(["rm", "stuck"]);
  });

  test("a secret in the builder's environment reaches no file", async () => {
    const canary = `canary-${process.pid}-in-the-environment`;
    await mvm.ok(["template", "build", "hello", "--snapshot", "--force"], { env: { MVM_TEST_CANARY: canary } });
    await mvm.ok(["run", "--template", "hello", "--name", "clean"], { env: { MVM_TEST_CANARY: canary } });
    const found = await run("grep", ["-rlaF", canary, mvm.dataDir]);
    assert.equal(found.stdout, "");
    assert.doesNotMatch(await shell(mvm, "clean", "env; cat /proc/1/environ"), /canary/);
    await mvm.ok(["rm", "--force", "clean"]);
  });

  test("a full disk is found before anything is written", async (t) => {
    const place = mkdtempSync(join(tmpdir(), "mvm-small-"));
    t.after(() => rmSync(place, { recursive: true, force: true }));
    const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=24m", "small", place]);
    if (mounted.exitCode !== 0) return t.skip(`a small file system can't be mounted: ${mounted.stderr.trim()}`);
    try {
      const small = useMvmctl({}, join(place, "data"));
      const example = join(import.meta.dirname, "..", "..", "examples", "hello");
      await small.ok(["template", "create", "hello", "--flake", example]);
      assert.match(await small.fails(["template", "build", "hello"], "DISK_FULL"), /free/);
      assert.deepEqual(leftovers(small.dataDir), []);
      await run("mount", ["-o", "remount,size=400m", place]);
      await small.ok(["template", "build", "hello"]);
      assert.match(await small.fails(["template", "build", "hello", "--snapshot"], "DISK_FULL"), /a snapshot needs/);
      assert.deepEqual(leftovers(small.dataDir), []);
      assert.equal((await small.json<{ revisions: unknown[] }>(["template", "info", "hello"])).revisions.length, 1);
    } finally {
      await run("umount", ["-l", place]);
    }
  });
});
