import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { buildExample, shell, start } from "../support/template.ts";
import { freePort } from "../support/wait.ts";

describe("clones of one snapshot", () => {
  let mvm: Mvmctl;
  let work: string;
  before(async () => {
    mvm = useMvmctl();
    work = mkdtempSync(join(tmpdir(), "mvm-work-"));
    await buildExample(mvm, "python-web", ["--mem", "256"]);
  });
  after(() => {
    mvm[Symbol.dispose]();
    rmSync(work, { recursive: true, force: true });
  });

  test("eight at once share no identity and no random number, and know what time it is", async () => {
    const names = ["one", "two", "three", "four", "five", "six", "seven", "eight"];
    const ports = await Promise.all(names.map(freePort));
    await Promise.all(names.map((name, index) => start(mvm, "python-web", name, ["-p", `${ports[index]}:8000`])));
    const scripts = {
      "random bytes": "head -c 16 /dev/urandom | od -An -tx1",
      "kernel UUID": "cat /proc/sys/kernel/random/uuid",
      "machine id": "cat /etc/machine-id",
      "host name": "hostname",
      MAC: "cat /sys/class/net/eth0/address",
    };
    const seen: Record<string, string[]> = {};
    const add = (what: string, value: string | undefined) => {
      seen[what] = [...(seen[what] ?? []), value ?? ""];
    };
    for (const [index, name] of names.entries()) {
      const lines = (await shell(mvm, name, Object.values(scripts).join("; "))).split("\n");
      for (const [at, what] of Object.keys(scripts).entries()) add(what, lines[at]);
      const answer = (await (await fetch(`http://127.0.0.1:${ports[index]}/`)).json()) as Record<string, string>;
      add("UUID of a process that ran before the snapshot", answer["requestId"]);
      assert.equal(answer["hostname"], name);
      assert.equal(answer["role"], "worker");

      const earlier = Date.now();
      const guest = 1000 * Number(await shell(mvm, name, "python3 -c 'import time; print(time.time())'"));
      assert.ok(guest > earlier - 500 && guest < Date.now() + 500, `clock of ${name}: ${guest - earlier} ms off`);
    }
    for (const [what, values] of Object.entries(seen)) {
      assert.ok(values.every(Boolean), `${what} is there`);
      assert.equal(new Set(values).size, names.length, `${what} differs in all: ${values}`);
    }
    await mvm.ok(["rm", "--force", ...names]);
  });

  test("-v delivers config and secrets to a restored instance, and --env reaches its services", async () => {
    for (const [directory, file] of [
      ["config", "app.conf"],
      ["secrets", "token"],
      ["site", "page.html"],
    ] as const) {
      mkdirSync(join(work, directory));
      writeFileSync(join(work, directory, file), `content of ${file}`, { mode: 0o600 });
    }
    const port = await freePort();
    const volumes = [
      "-v",
      `${work}/config:/mnt/config`,
      "-v",
      `${work}/secrets:/mnt/secrets`,
      "-v",
      `${work}/site:/srv/site`,
    ];
    const started = await start(mvm, "python-web", "volumes", [
      ...volumes,
      "-e",
      "PORT_NAME=x y",
      "-p",
      `${port}:8000`,
    ]);
    assert.equal(started.start, "restored");
    assert.equal(await shell(mvm, "volumes", "cat /mnt/config/app.conf", "app"), "content of app.conf");
    assert.equal(await shell(mvm, "volumes", "cat /mnt/secrets/token", "app"), "content of token");
    assert.equal(await shell(mvm, "volumes", "stat -c '%a %U' /mnt/secrets/token"), "440 root");
    assert.equal(
      (await mvm.run(["exec", "--user", "65534", "volumes", "--", "cat", "/mnt/secrets/token"])).exitCode === 0,
      false,
    );
    assert.equal(await shell(mvm, "volumes", "cat /srv/site/page.html"), "content of page.html");
    assert.match(await shell(mvm, "volumes", "cat /proc/mounts"), / \/mnt\/secrets tmpfs /);
    const environments = "for p in $(pidof python3); do tr '\\0' '\\n' < /proc/$p/environ; done";
    assert.match(await shell(mvm, "volumes", environments), /^PORT_NAME=x y$/m);
    assert.equal(await shell(mvm, "volumes", "echo $PORT_NAME"), "x y");
    assert.equal((await fetch(`http://127.0.0.1:${port}/health`)).status, 200);
    await mvm.ok(["rm", "--force", "volumes"]);
  });

  test("-v delivers as much as a directory holds, and says where it can't", async () => {
    mkdirSync(join(work, "large"));
    const content = "0123456789abcdef".repeat(20_000);
    writeFileSync(join(work, "large", "data"), content);
    await start(mvm, "python-web", "large", ["-v", `${work}/large:/srv/large`]);
    assert.equal(await shell(mvm, "large", "cat /srv/large/data"), content);
    await mvm.ok(["rm", "--force", "large"]);

    mkdirSync(join(work, "small"));
    writeFileSync(join(work, "small", "data"), "");
    const refused = await mvm.run([
      "run",
      "--template",
      "python-web",
      "--name",
      "small",
      "-v",
      `${work}/small:/etc/hostname/x`,
    ]);
    assert.equal(refused.exitCode, 1);
    assert.match(refused.stderr, /refused.*Not a directory[\s\S]*hint: .*-v/);
    assert.equal((await mvm.ok(["ls", "--json"])).includes("small"), false);
  });

  test("other sizes than the snapshot's mean a cold boot, which says so", async () => {
    const started = await start(mvm, "python-web", "larger", ["--mem", "320", "--cpus", "1"]);
    assert.equal(started.start, "booted");
    assert.match(started.coldBootReason ?? "", /mem is 256 in it and 320 was asked for/);
    assert.equal(await shell(mvm, "larger", "nproc"), "1");
    await mvm.ok(["rm", "--force", "larger"]);
  });

  test("forward reaches a port that was not published", async () => {
    await start(mvm, "python-web", "forwarded");
    const port = await freePort();
    const stop = new AbortController();
    const forwarding = mvm.run(["forward", "forwarded", `${port}:8000`], {
      signal: stop.signal,
      onStderrLine: (line) => {
        if (!line.includes("reaches port 8000")) return;
        fetch(`http://127.0.0.1:${port}/health`)
          .then((answer) => stop.abort(answer.status))
          .catch((error: unknown) => stop.abort(error));
      },
    });
    await assert.rejects(forwarding, (reason: unknown) => reason === 200);
    await mvm.ok(["rm", "--force", "forwarded"]);
  });
});
