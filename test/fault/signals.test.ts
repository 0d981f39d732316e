import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import { resolvePaths } from "../../src/core/paths.ts";
import { spawnChecked } from "../../src/core/process.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { requireSound } from "../support/kill.ts";
import { LAUNCHER, type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { makeTemplate } from "../support/registry.ts";
import { startS3rver } from "../support/s3-server.ts";
import { buildHelloWith, shell, start } from "../support/template.ts";
import { freePort, until } from "../support/wait.ts";

const SIGNALS = [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const;

/** Two seconds are promised; how long it took is printed, and a machine that is busy fails nobody's test. */
const DEADLINE_MS = 20_000;

describe("commands that are told to stop", () => {
  let mvm: Mvmctl;
  before(async () => {
    mvm = useMvmctl();
    await buildHelloWith(mvm, "hello", 'services.talk.command = [ "sh" "-c" "while :; do echo here; sleep 1; done" ];');
    await start(mvm, "hello", "svc");
  });
  after(() => mvm[Symbol.dispose]());

  /** Each signal ends the command with its exit code, once it is under way, and nothing of it is left. */
  async function stops(
    t: TestContext,
    who: Mvmctl,
    args: readonly string[],
    isUnderWay: (said: string) => boolean,
    check: () => Promise<unknown>,
  ): Promise<void> {
    for (const [signal, exitCode] of SIGNALS) {
      const before = processesOf(who);
      const child = await spawnChecked(process.execPath, [LAUNCHER, ...args], { env: who.env, stdio: "pipe" });
      let said = "";
      for (const stream of [child.stdout!, child.stderr!])
        stream.setEncoding("utf8").on("data", (text) => (said += text));
      const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
      await until(`${args.join(" ")} is under way, which said ${said}`, () => isUnderWay(said), 60_000);
      const sent = performance.now();
      child.kill(signal);
      let ended: number | null | undefined;
      void closed.then((code) => {
        ended = code;
      });
      await until(`${args.join(" ")} ends`, () => ended !== undefined, DEADLINE_MS);
      t.diagnostic(`${signal}: ended after ${Math.round(performance.now() - sent)} ms`);
      assert.equal(ended, exitCode, said);
      assert.doesNotMatch(said, /error/);
      await until("no process of it is left", () => processesOf(who).length === before.length);
      await requireSound(who);
      await check();
    }
  }

  test("template build, while Nix works", async (t) => {
    const build = ["template", "build", "hello", "--force"];
    const nixWorks = (said: string) => /Building the image/.test(said) && processesOf(mvm).some(isNix);
    await stops(t, mvm, build, nixWorks, () => mvm.ok(["template", "info", "hello"]));
    assert.equal((await mvm.json<{ revisions: unknown[] }>(["template", "info", "hello"])).revisions.length, 1);
  });

  test("template build --snapshot, while its VM boots", async (t) => {
    const build = ["template", "build", "hello", "--snapshot", "--force"];
    const keepsSnapshot = async () => {
      type Info = { revisions: { snapshots: unknown[] }[] };
      assert.equal((await mvm.json<Info>(["template", "info", "hello"])).revisions[0]?.snapshots.length, 1);
    };
    await stops(t, mvm, build, (said) => /Waiting for the guest's agent/.test(said), keepsSnapshot);
  });

  test("run, while its VM boots", async (t) => {
    const run = ["run", "--template", "hello", "--name", "early", "--cold"];
    const noInstance = async () => {
      assert.deepEqual(
        (await mvm.json<{ name: string }[]>(["ls"])).map(({ name }) => name),
        ["svc"],
      );
    };
    await stops(t, mvm, run, (said) => /Booting/.test(said), noInstance);
    // Those that were started before go with the others.
    const many = [...run.slice(0, -2), "early", "--count", "3", "--parallel", "1"];
    const oneIsUp = () => existsSync(join(mvm.dataDir, "instances", "early-2"));
    await stops(t, mvm, many, oneIsUp, noInstance);
  });

  test("exec, whose command in the guest ends, too", async (t) => {
    const exec = ["exec", "svc", "--", "sh", "-c", "echo begun; exec sleep 12345"];
    const isGone = () =>
      until("the command in the guest has ended", async () => {
        return (await shell(mvm, "svc", "pgrep -f '^sleep 1234[5]' || echo none")) === "none";
      });
    await stops(t, mvm, exec, (said) => /begun/.test(said), isGone);
  });

  test("logs -f", async (t) => {
    await stops(
      t,
      mvm,
      ["logs", "svc", "-f"],
      (said) => /here/.test(said),
      () => mvm.ok(["logs", "svc"]),
    );
  });

  test("forward", async (t) => {
    const forward = ["forward", "svc", `${await freePort()}:8080`];
    await stops(
      t,
      mvm,
      forward,
      (said) => /reaches port 8080/.test(said),
      async () => {},
    );
  });

  test("push and pull, while a server does not answer", async (t) => {
    await using server = await startS3rver();
    await using proxy = await startFaultProxy(server.options.endpoint);
    using registryUser = useMvmctl(server.env(proxy.endpoint.href));
    makeTemplate(resolvePaths(registryUser.env), "web");
    const silent = (method: string) => {
      const rule = proxy.on({ method, path: /blobs/, times: Infinity }, { kind: "stall" });
      let before = 0;
      // Until a command has said something, what the last one asked is counted.
      return (said: string) => {
        if (said === "") before = rule.used;
        return rule.used > before;
      };
    };
    const verify = ["template", "verify", "web"];
    await stops(t, registryUser, ["template", "push", "web"], silent("PUT"), () => registryUser.ok(verify));
    await registryUser.fails(["template", "verify", "web", "--remote"], "REGISTRY_TEMPLATE_NOT_FOUND");
    proxy.clear();
    await registryUser.ok(["template", "push", "web"]);
    await registryUser.ok(["template", "delete", "web", "--yes"]);
    await stops(t, registryUser, ["template", "pull", "web"], silent("GET"), async () => {
      assert.deepEqual(await registryUser.json(["template", "list"]), []);
    });
    proxy.clear();
    await registryUser.ok(["template", "pull", "web"]);
    await registryUser.ok(verify);
  });
});

function isNix(pid: string): boolean {
  return readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith("nix\0");
}

/** Processes that were started for a data directory: its name is in their environment. */
function processesOf({ dataDir }: Mvmctl): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid) || pid === String(process.pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/environ`, "latin1").includes(dataDir);
    } catch {
      return false;
    }
  });
}
