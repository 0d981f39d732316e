import assert from "node:assert/strict";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { findProgram } from "../../src/core/process.ts";
import { findVmProcesses } from "../../src/core/process-identity.ts";
import type { RunOutcome } from "../../src/instance/run-request.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { HERE, METADATA, OUTSIDE, type Outside, PORT, startOutside } from "../support/outside.ts";
import { freePort, until } from "../support/wait.ts";

const skip =
  process.getuid?.() !== 0
    ? "needs root: it makes a second machine to connect to"
    : findProgram("slirp4netns", process.env)
      ? false
      : "needs slirp4netns";

const LOOPBACK = "10.0.2.2";

// The network is the one that Firecracker's guests have, too: this is where a real guest uses it.
describe("an isolated guest", { skip }, () => {
  let mvm: Mvmctl;
  let outside: Outside;
  let host: Server;
  before(async () => {
    mvm = useMvmctl();
    outside = await startOutside();
    host = createServer((socket) => socket.end("the host\n"));
    await new Promise<void>((resolve) => host.listen(PORT, "0.0.0.0", resolve));
    await mvm.ok(["template", "create", "hello", "--flake", join(REPOSITORY, "examples", "hello"), "--mem", "256"]);
    await mvm.ok(["template", "build", "hello", "--snapshot"]);
  });
  after(() => {
    host?.close();
    outside?.[Symbol.dispose]();
    mvm[Symbol.dispose]();
  });

  /** What somebody at an address says to the guest; nothing, if it is not reached. */
  const ask = async (name: string, address: string): Promise<string> => {
    const { stdout } = await mvm.run(["exec", name, "--", "nc", "-w", "5", address, String(PORT)]);
    return stdout.trim();
  };
  const processesOf = (name: string) => findVmProcesses(join(mvm.dataDir, "instances", name));

  for (const start of ["restored", "booted"]) {
    test(`${start}, is reached through its port, reaches the outside, and neither metadata nor the host`, async () => {
      const port = await freePort();
      const args = ["run", "--template", "hello", "--name", start, "--isolate", "-p", `${port}:8080`];
      const outcome = await mvm.json<RunOutcome>(start === "booted" ? [...args, "--cold"] : args);
      assert.equal(outcome.start, start);

      const page = await until("the published port answers", async () =>
        (await fetch(`http://127.0.0.1:${port}/`)).text(),
      );
      assert.match(page, /<html/);
      assert.equal(await ask(start, OUTSIDE), "the outside");
      for (const address of [METADATA, HERE, LOOPBACK]) assert.equal(await ask(start, address), "", address);

      await mvm.ok(["stop", start]);
      await until("its network ends with it", () => processesOf(start).length === 0);
      await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
    });
  }

  test("reaches what --allow names, and nothing else that is blocked", async () => {
    const args = ["run", "--template", "hello", "--name", "allowed", "--isolate"];
    await mvm.ok([...args, "--allow", LOOPBACK]);
    assert.equal(await ask("allowed", LOOPBACK), "the host");
    assert.equal(await ask("allowed", HERE), "");
    await mvm.ok(["rm", "--force", "allowed"]);

    await mvm.ok([...args, "--allow", `${HERE}/32`]);
    assert.equal(await ask("allowed", HERE), "the host");
    assert.equal(await ask("allowed", LOOPBACK), "");
    await mvm.ok(["rm", "--force", "allowed"]);
  });

  test("takes its network with it when its hypervisor is killed", async () => {
    await mvm.ok(["run", "--template", "hello", "--name", "killed", "--isolate"]);
    assert.match(await mvm.ok(["inspect", "killed"]), /network +its own \(isolated\)/);
    const { status } = await mvm.json<{ status: { record: { process: { pid: number } } } }>(["inspect", "killed"]);
    process.kill(status.record.process.pid, "SIGKILL");
    await until("nothing of it is left", () => processesOf("killed").length === 0);
    const all = await mvm.json<{ name: string; state: string }[]>(["ls"]);
    assert.equal(all.find(({ name }) => name === "killed")?.state, "dead");
  });

  test("--allow says what it needs, and a wrong address leaves nothing", async () => {
    const args = ["run", "--template", "hello", "--name", "never", "--allow"];
    assert.match(await mvm.fails([...args, HERE], "NOT_ISOLATED"), /--isolate/);
    assert.match(await mvm.fails([...args, "198.51.100", "--isolate"], "INVALID_NETWORK"), /192\.0\.2\.7/);
    assert.equal(processesOf("never").length, 0);
    assert.match(await mvm.fails(["inspect", "never"], "INSTANCE_NOT_FOUND"), /never/);
  });
});
