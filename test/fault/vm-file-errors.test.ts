import assert from "node:assert/strict";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Context } from "../../src/core/context.ts";
import { MvmError } from "../../src/core/errors.ts";
import { parseInstanceName, parseTemplateName } from "../../src/core/names.ts";
import { findVmProcesses } from "../../src/core/process-identity.ts";
import { chooseDriver } from "../../src/hypervisor/choose.ts";
import { createContext } from "../../src/index.ts";
import { runInstance } from "../../src/instance/run.ts";
import { removeInstance } from "../../src/instance/stop.ts";
import { buildTemplate } from "../../src/template/build.ts";
import { currentRevisionId } from "../../src/template/revisions.ts";
import { readSnapshots } from "../../src/template/snapshots.ts";
import { failFileCalls, failNthFileCall } from "../support/failing-files.ts";
import { leftovers, requireSound } from "../support/kill.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { buildExample } from "../support/template.ts";

const CODES = ["EIO", "EROFS", "EACCES", "EMFILE"];
/** Undefined where the call that was to fail was never made. */
type Outcome = "worked" | "failed" | undefined;
const hello = parseTemplateName("hello");

/** In each test the file calls of the data directory fail one after the other, each in a run of its own, with these codes in turn. */
describe("file calls that fail while a VM is built or run", () => {
  let mvm: Mvmctl;
  let ctx: Context;
  before(async () => {
    mvm = useMvmctl();
    ctx = createContext({ env: mvm.env });
    await buildExample(mvm, "hello", ["--mem", "256"]);
  });
  after(() => mvm[Symbol.dispose]());

  /** What happened when the nth call failed: undefined if there is none any more. */
  async function failing(nth: number, work: () => Promise<unknown>): Promise<Outcome> {
    const code = CODES[nth % CODES.length]!;
    let outcome: Outcome = "worked";
    const hit = await failNthFileCall(nth, code, mvm.dataDir, async () => {
      try {
        await work();
      } catch (error) {
        outcome = "failed";
        assert.ok(error instanceof MvmError, `${code} at call ${nth}: ${(error as Error).stack}`);
        assert.ok(error.message.includes("/"), `${code} at call ${nth}: ${error.message}`);
      }
    });
    return hit ? outcome : undefined;
  }

  /** A staging entry stays only where all that failed was removing it: the next command's sweep takes it. */
  function removeLeftovers(outcome: Outcome): void {
    if (outcome !== "worked") return;
    for (const path of leftovers(mvm.dataDir)) rmSync(join(mvm.dataDir, path), { recursive: true, force: true });
  }

  test("run: an error that names the file, with no VM and no instance left, or a VM that runs", async () => {
    const name = parseInstanceName("svc");
    const request = { template: hello, name, ports: [], volumes: [], env: {}, cold: false, timeoutMs: 60_000 };
    const run = () => runInstance(ctx, { ...request, waitFor: "healthy" });
    await run();
    for (let nth = 1, outcome: Outcome = "worked"; outcome; nth++) {
      if (outcome === "worked") await removeInstance(ctx, name, { force: true });
      removeLeftovers(outcome);
      outcome = await failing(nth, run);
      const running = outcome === "failed" ? [] : ["svc"];
      assert.deepEqual(findVmProcesses(mvm.dataDir).length, running.length, `call ${nth}`);
      removeLeftovers(outcome);
      assert.deepEqual(readdirSync(ctx.paths.instances), running, `call ${nth}`);
    }
    await removeInstance(ctx, name, { force: true });
    await requireSound(mvm);
  });

  test("template build: an error that names the file, with no revision, or one that is whole", async () => {
    const id = currentRevisionId(ctx.paths, hello);
    for (let nth = 1, outcome: Outcome = "worked"; outcome; nth++) {
      rmSync(ctx.paths.revisions(hello), { recursive: true });
      rmSync(ctx.paths.current(hello), { force: true });
      outcome = await failing(nth, () => buildTemplate(ctx, hello, { force: false }));
      assert.ok(
        [id, outcome === "failed" ? undefined : id].includes(currentRevisionId(ctx.paths, hello)),
        `call ${nth}`,
      );
      removeLeftovers(outcome);
      await requireSound(mvm);
      mkdirSync(ctx.paths.revisions(hello), { recursive: true });
    }
  });

  test("no space at the moment a manifest is written: it is said, and what was there is untouched", async () => {
    const drivers = [await chooseDriver(ctx, undefined, {})];
    const build = () => buildTemplate(ctx, hello, { force: true, snapshot: { drivers, timeoutMs: 60_000 } });
    const { revision } = await build();
    const snapshots = () =>
      readSnapshots(ctx.paths.snapshots(hello, revision.id)).map(({ snapshot }) => snapshot.createdAt);
    const before = snapshots();
    assert.equal(before.length, 1);
    for (const [file, code] of [
      ["build.json", "DISK_FULL"],
      ["snapshot.json", "SNAPSHOT_FAILED"],
    ] as const) {
      await failFileCalls(
        (name, first) => name === "openSync" && String(first).endsWith(`-${file}`),
        "ENOSPC",
        async () => {
          await assert.rejects(build(), (error) => {
            assert.ok(error instanceof MvmError && error.code === code, String(error));
            assert.match(error.message, new RegExp(`${file}: no space left`));
            return true;
          });
        },
      );
      assert.deepEqual(snapshots(), before);
      assert.deepEqual(findVmProcesses(mvm.dataDir), []);
      await requireSound(mvm);
    }
  });
});
