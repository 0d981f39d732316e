import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseTemplateName } from "../../src/core/names.ts";
import { resolvePaths } from "../../src/core/paths.ts";
import { findVmProcesses, isAlive, signalProcess } from "../../src/core/process-identity.ts";
import { requireSound } from "../support/kill.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { buildHelloWith, shell, start } from "../support/template.ts";
import { freePort, until } from "../support/wait.ts";

describe("clones of a snapshot, and what happens to its files and its hypervisor", () => {
  let mvm: Mvmctl;
  let flake: string;
  before(async () => {
    mvm = useMvmctl();
    flake = await buildHelloWith(mvm, "hello", "");
  });
  after(() => mvm[Symbol.dispose]());

  for (const [what, signal] of [
    ["dies", "SIGKILL"],
    ["hangs", "SIGSTOP"],
  ] as const) {
    test(`a hypervisor that ${what} while it loads a snapshot is an error, and nothing of it is left`, async (t) => {
      const started = performance.now();
      const running = mvm.run(["run", "--template", "hello", "--name", "stuck", "--json"]);
      const vm = await until("the hypervisor is started", () => {
        return findVmProcesses(mvm.dataDir)[0];
      });
      signalProcess(vm, signal);
      const { exitCode, stderr } = await running;
      t.diagnostic(`run ended after ${Math.round(performance.now() - started)} ms`);
      assert.equal(exitCode, 1);
      const { error } = JSON.parse(stderr.slice(stderr.indexOf('{"error"')));
      assert.equal(error.code, signal === "SIGKILL" ? "VM_DIED" : "HYPERVISOR_FAILED", stderr);
      assert.equal(isAlive(vm), false);
      assert.deepEqual(findVmProcesses(mvm.dataDir), []);
      assert.deepEqual(await mvm.json(["ls"]), []);
      await requireSound(mvm);
      assert.equal((await start(mvm, "hello", "stuck")).start, "restored");
      await mvm.ok(["rm", "--force", "stuck"]);
    });
  }

  test("what clones run from is replaced, rolled back and deleted, and they are unharmed", async () => {
    const page = async (port: number) => (await (await fetch(`http://127.0.0.1:${port}/`)).text()).trim();
    const ports: number[] = [];
    const run = async (name: string) => {
      const port = await freePort();
      ports.push(port);
      assert.equal((await start(mvm, "hello", name, ["-p", `${port}:8080`])).start, "restored");
    };
    /** Reads the root file system from the disk, but for what changes while a guest runs. */
    const readRoot = (name: string) =>
      shell(
        mvm,
        name,
        "echo 3 >/proc/sys/vm/drop_caches; find /usr /bin /lib /srv -xdev -type f -exec cat {} + 2>/dev/null | sha256sum",
      );
    await run("one");
    const root = await readRoot("one");

    writeFileSync(join(flake, "index.html"), "the second page\n");
    await mvm.ok(["template", "build", "hello", "--snapshot"]);
    await run("two");
    await mvm.ok(["template", "build", "hello", "--snapshot", "--force"]);
    await mvm.ok(["template", "rollback", "hello"]);
    await run("three");
    assert.match(await mvm.fails(["template", "delete", "hello", "--yes"], "TEMPLATE_IN_USE"), /one, three, two/);
    rmSync(resolvePaths(mvm.env).template(parseTemplateName("hello")), { recursive: true });

    const pages = await Promise.all(ports.map(page));
    assert.deepEqual([pages[1], pages[0] === pages[2]], ["the second page", true]);
    assert.equal(await readRoot("one"), root);
    assert.equal(await readRoot("three"), root);
    assert.notEqual(await readRoot("two"), root);
    await mvm.ok(["rm", "--force", "one", "two", "three"]);
    await requireSound(mvm);
  });
});
