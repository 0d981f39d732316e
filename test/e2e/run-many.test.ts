import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { findVmProcesses } from "../../src/core/process-identity.ts";
import type { RunOutcome } from "../../src/instance/run-request.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { buildExample, shell, start } from "../support/template.ts";

describe("run --count", () => {
  let mvm: Mvmctl;
  before(async () => {
    mvm = useMvmctl();
    await buildExample(mvm, "hello", ["--mem", "256"]);
  });
  after(() => mvm[Symbol.dispose]());

  const many = (count: number, more: readonly string[] = []) => [
    ...["run", "--template", "hello", "--name", "many", "--count", String(count)],
    ...more,
  ];
  const listed = async () => (await mvm.json<{ name: string }[]>(["ls"])).map(({ name }) => name);

  test("starts as many as were asked for, each another with a host port of its own", async () => {
    const outcomes = await mvm.json<RunOutcome[]>(many(5, ["--parallel", "3", "-p", "8080"]));
    const names = ["many-1", "many-2", "many-3", "many-4", "many-5"];
    assert.deepEqual(
      outcomes.map(({ name, start }) => [name, start]),
      names.map((name) => [name, "restored"]),
    );
    for (const { name, ports } of outcomes) {
      assert.match(await (await fetch(`http://127.0.0.1:${ports[0]?.hostPort}/`)).text(), /Hello/);
      assert.equal(await shell(mvm, name, "hostname"), name);
    }
    assert.deepEqual(await listed(), names);
    await mvm.ok(["rm", "--force", ...names]);
  });

  test("starts none if one can't be started, and takes no data disk away", async () => {
    const disk = ["--data-disk", "64"];
    await start(mvm, "hello", "many-1", disk);
    await shell(mvm, "many-1", "echo precious > /mnt/data/file; sync");
    await mvm.ok(["stop", "many-1"]);
    await start(mvm, "hello", "many-3");

    const text = await mvm.fails(many(4, ["--parallel", "1", ...disk]), "INSTANCE_EXISTS");
    assert.match(text, /many-3 could not be started, and so none is: .*'many-3' is in use/);
    assert.deepEqual(await listed(), ["many-1", "many-3"]);
    assert.equal(findVmProcesses(mvm.dataDir).length, 1, "many-3 alone runs");

    await mvm.ok(["rm", "--force", "many-3"]);
    await mvm.ok(many(3, disk));
    assert.equal(await shell(mvm, "many-1", "cat /mnt/data/file"), "precious");
    await mvm.ok(["rm", "--force", "many-1", "many-2", "many-3"]);
  });

  test("says what can't be meant before anything is started", async () => {
    assert.match(await mvm.fails(many(2, ["-p", "8080:80"]), "INVALID_PORT"), /8080[\s\S]*-p 80$/);
    await mvm.fails(many(0), "INVALID_SIZE");
    await mvm.fails(many(2, ["--parallel", "x"]), "INVALID_SIZE");
    await mvm.fails(many(2, ["--foreground"]), "USAGE");
    await mvm.fails(["run", "--template", "hello", "--parallel", "2"], "USAGE");
    const long = "a".repeat(62);
    await mvm.fails(["run", "--template", "hello", "--name", long, "--count", "2"], "INVALID_NAME");
    assert.deepEqual(await listed(), []);
  });
});
