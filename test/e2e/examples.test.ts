import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { run } from "../../src/core/process.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { buildExample, shell, start } from "../support/template.ts";
import { freePort } from "../support/wait.ts";

describe("the examples", () => {
  let mvm: Mvmctl;
  before(() => {
    mvm = useMvmctl();
  });
  after(() => mvm[Symbol.dispose]());

  test("hello serves its page, and building it twice gives the same bytes", async () => {
    await buildExample(mvm, "hello", ["--mem", "256"]);
    const port = await freePort();
    assert.equal((await start(mvm, "hello", "hello", ["-p", `${port}:8080`])).start, "restored");
    assert.match(await (await fetch(`http://127.0.0.1:${port}/`)).text(), /Hello from a microVM/);
    await mvm.ok(["rm", "--force", "hello"]);

    const features = ["nix-command", "flakes"].flatMap((feature) => ["--extra-experimental-features", feature]);
    const options = [
      ...features,
      "--option",
      "substituters",
      "",
      ...(process.getuid?.() === 0 ? ["--option", "build-users-group", ""] : []),
    ];
    const override = ["--override-input", "mvm", `path:${REPOSITORY}/nix`];
    const rebuilt = await run(
      "nix",
      ["build", ...options, "--no-link", "--rebuild", ...override, `${REPOSITORY}/examples/hello`],
      { timeoutMs: 300_000 },
    );
    assert.equal(rebuilt.exitCode, 0, rebuilt.stderr);
  });

  test("redis answers a restored instance's client", async () => {
    await buildExample(mvm, "redis", ["--mem", "256"]);
    assert.equal((await start(mvm, "redis", "redis")).start, "restored");
    assert.equal(await shell(mvm, "redis", "redis-cli incr visits"), "1");
    assert.equal(await shell(mvm, "redis", "redis-cli incr visits"), "2");
    await mvm.ok(["rm", "--force", "redis"]);
  });

  test("postgres answers queries at once, and its data disk is each instance's own and outlives stop", async () => {
    await buildExample(mvm, "postgres", ["--mem", "512", "--data-disk", "512"]);
    const query = (name: string, sql: string) =>
      shell(mvm, name, `/usr/lib/postgresql/15/bin/psql -h /run/postgresql -At -c "${sql}"`, "postgres");
    assert.equal((await start(mvm, "postgres", "first")).start, "restored");
    assert.equal((await start(mvm, "postgres", "second")).start, "restored");
    await query("first", "create table visits (n int); insert into visits values (41)");
    assert.equal(await query("first", "select n + 1 from visits"), "42");
    assert.equal(await query("second", "select count(*) from pg_tables where tablename = 'visits'"), "0");
    await mvm.ok(["rm", "--force", "second"]);

    await mvm.ok(["stop", "first"]);
    const again = await start(mvm, "postgres", "first");
    assert.equal(again.start, "booted");
    assert.match(again.coldBootReason ?? "", /its own data disk/);
    assert.equal(await query("first", "select n + 1 from visits"), "42");
    await mvm.ok(["rm", "--force", "first"]);
    assert.equal((await start(mvm, "postgres", "first")).start, "restored");
    assert.equal(await query("first", "select count(*) from pg_tables where tablename = 'visits'"), "0");
    await mvm.ok(["rm", "--force", "first"]);
  });
});
