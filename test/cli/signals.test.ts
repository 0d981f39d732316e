import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { LAUNCHER, type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { until } from "../support/wait.ts";

/** Of the fault table: a stopped command ends in under this time. */
const STOP_WITHIN_MS = 2000;

describe("a command that is stopped", () => {
  let mvm: Mvmctl;
  let work: string;
  let started: string;
  before(async () => {
    work = mkdtempSync(join(tmpdir(), "mvm-signals-"));
    started = join(work, "started");
    // A Nix that says where it is and then takes for ever, as a long build does.
    mkdirSync(join(work, "bin"));
    writeFileSync(join(work, "bin", "nix"), `#!/bin/sh\necho $$ > ${started}\nexec sleep 600\n`, { mode: 0o755 });
    writeFileSync(join(work, "flake.nix"), "{ outputs = { self }: { }; }\n");
    mvm = useMvmctl({ PATH: `${join(work, "bin")}:${process.env["PATH"]}` });
    await mvm.ok(["template", "create", "slow", "--flake", work]);
  });
  after(() => {
    mvm[Symbol.dispose]();
    rmSync(work, { recursive: true, force: true });
  });

  /** Starts a build that does not end by itself, and waits until it is in the middle. */
  async function startBuild(): Promise<{ child: ChildProcess; nix: number }> {
    rmSync(started, { force: true });
    const child = spawn(process.execPath, [LAUNCHER, "template", "build", "slow"], { env: mvm.env });
    const nix = await until("Nix runs", () => existsSync(started) && Number(readFileSync(started, "latin1")));
    return { child, nix };
  }

  for (const [signal, exitCode] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    test(`by ${signal} says so, ends what it started, and exits with ${exitCode}`, async () => {
      const { child, nix } = await startBuild();
      const said = collect(child);
      const stoppedAt = performance.now();
      child.kill(signal);
      const [code] = await once(child, "close");
      assert.ok(performance.now() - stoppedAt < STOP_WITHIN_MS);
      assert.equal(code, exitCode);
      assert.match(said(), new RegExp(`stopped by ${signal}\n$`));
      assert.equal(isRunning(nix), false, "Nix is gone");
      const entries = readdirSync(mvm.dataDir, { recursive: true, encoding: "utf8" });
      assert.deepEqual(
        entries.filter((entry) => entry.includes(".staging-")),
        [],
      );
    });
  }

  test("goes on when nobody reads its progress any more", async () => {
    const { child, nix } = await startBuild();
    child.stdout?.destroy();
    child.stderr?.destroy();
    process.kill(nix, "SIGKILL");
    const [code] = await once(child, "close");
    assert.equal(code, 1, "it failed because Nix did, and not because of its output");
  });

  test("because its reader has read enough ends with 0 and says nothing", async () => {
    const child = spawn(process.execPath, [LAUNCHER, "help"], { env: mvm.env, stdio: ["ignore", "pipe", "pipe"] });
    const said = collect(child);
    child.stdout.destroy();
    const [code] = await once(child, "close");
    assert.deepEqual([code, said()], [0, ""]);
  });
});

function collect(child: ChildProcess): () => string {
  let text = "";
  child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  return () => text;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
