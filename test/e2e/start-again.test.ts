import assert from "node:assert/strict";
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { findVmProcesses, signalProcess } from "../../src/core/process-identity.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { buildExample, shell } from "../support/template.ts";
import { until } from "../support/wait.ts";

interface Port {
  readonly hostPort: number;
  readonly guestPort: number;
}

interface Listed {
  readonly name: string;
  readonly state: string;
  readonly record: { readonly revision: string; readonly ports: Port[]; readonly memMiB: number };
}

describe("an instance that is started again", () => {
  let mvm: Mvmctl;
  let volume: string;
  before(async () => {
    mvm = useMvmctl();
    volume = join(mvm.dataDir, "config");
    mkdirSync(volume);
    await buildExample(mvm, "hello", ["--mem", "256"]);
  });
  after(() => mvm[Symbol.dispose]());

  const list = () => mvm.json<Listed[]>(["ls"]);
  const answer = async (port: number) => (await fetch(`http://127.0.0.1:${port}/`)).text();

  test("has its settings, its host ports and its data disk, after stop and after its VM died", async () => {
    writeFileSync(join(volume, "file"), "first");
    const words = ["run", "--template", "hello", "--name", "svc", "-p", "8080", "-v", `${volume}:/mnt/config`];
    const { ports } = await mvm.json<{ ports: Port[] }>([
      ...words,
      ...["-e", "GREETING=secret", "--data-disk", "64", "--mem", "320"],
    ]);
    const hostPort = ports[0]?.hostPort ?? 0;
    assert.ok(hostPort > 0, "a free host port was chosen");
    assert.match(await answer(hostPort), /Hello/);
    assert.match(await mvm.ok(["ls"]), new RegExp(`${hostPort}:8080`));
    const taken = await mvm.fails(["run", "hello", "-p", `${hostPort}:8080`], "PORT_IN_USE");
    assert.match(taken, /published by the instance 'svc'[\s\S]*mvmctl stop svc/);
    await shell(mvm, "svc", "echo precious > /mnt/data/file; sync");
    const [before] = await list();

    const check = async () => {
      const [now] = await list();
      assert.equal(now?.state, "running");
      assert.deepEqual(
        [now.record.revision, now.record.ports, now.record.memMiB],
        [before?.record.revision, ports, 320],
      );
      assert.match(await answer(hostPort), /Hello/);
      assert.equal(
        await shell(mvm, "svc", "cat /mnt/data/file /mnt/config/file; echo $GREETING"),
        "precious\nsecondsecret",
      );
    };
    writeFileSync(join(volume, "file"), "second");
    await mvm.ok(["stop", "svc"]);
    assert.match(await mvm.fails(["exec", "svc", "--", "true"], "INSTANCE_NOT_RUNNING"), /mvmctl start svc/);
    // A new build has nothing to do with it.
    await mvm.ok(["template", "edit", "hello", "--mem", "192"]);
    await mvm.ok(["template", "build", "hello"]);
    assert.match(await mvm.ok(["start", "svc"]), new RegExp(`127.0.0.1:${hostPort} reaches port 8080`));
    await check();
    assert.match(await mvm.fails(["start", "svc"], "INSTANCE_RUNNING"), /is running/);

    const vms = findVmProcesses(mvm.dataDir);
    for (const vm of vms) signalProcess(vm, "SIGKILL");
    await until("the instance is dead", async () => (await list())[0]?.state === "dead");
    await mvm.ok(["start", "svc"]);
    await check();

    await mvm.ok(["stop", "svc"]);
    rmSync(volume, { recursive: true });
    assert.match(await mvm.fails(["start", "svc"], "VOLUME_NOT_FOUND"), /mkdir -p/);
    assert.equal((await list())[0]?.state, "stopped");
  });

  test("keeps its variables to whoever owns it", async () => {
    assert.equal(statSync(join(mvm.dataDir, "instances", "svc", "settings.json")).mode & 0o777, 0o600);
    for (const args of [["ls"], ["inspect", "svc"]])
      assert.doesNotMatch(JSON.stringify(await mvm.json(args)), /secret/);
  });

  test("whose settings are not known says how to say them again", async () => {
    rmSync(join(mvm.dataDir, "instances", "svc", "settings.json"));
    assert.match(await mvm.fails(["start", "svc"], "NO_SETTINGS"), /mvmctl run --template hello --name svc/);
    await mvm.fails(["start", "nobody"], "INSTANCE_NOT_FOUND");
  });

  test("forward chooses a free host port, too", async () => {
    await mvm.ok(["run", "--template", "hello", "--name", "forwarded"]);
    const stop = new AbortController();
    const forwarding = mvm.run(["forward", "forwarded", "8080"], {
      signal: stop.signal,
      onStderrLine: (line) => {
        const port = /127\.0\.0\.1:(\d+) reaches port 8080/.exec(line)?.[1];
        if (port === undefined) return;
        const taken = mvm.fails(["forward", "forwarded", `${port}:8080`], "PORT_IN_USE");
        taken
          .then((said) => assert.match(said, /choose another host port: \d+:GUEST/))
          .then(() => answer(Number(port)))
          .then((text) => stop.abort(text))
          .catch((error: unknown) => stop.abort(error));
      },
    });
    await assert.rejects(forwarding, (reason: unknown) => /Hello/.test(String(reason)));
    await mvm.ok(["rm", "--force", "forwarded"]);
  });
});
