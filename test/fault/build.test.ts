import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { run } from "../../src/core/process.ts";
import { findVmProcesses } from "../../src/core/process-identity.ts";
import { atRandomMoments, durationOf, requireSound } from "../support/kill.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { start } from "../support/template.ts";
import { until } from "../support/wait.ts";

describe("building, and what can go wrong", () => {
  let mvm: Mvmctl;
  let work: string;
  let flake: string;
  before(async () => {
    mvm = useMvmctl();
    work = mkdtempSync(join(tmpdir(), "mvm-work-"));
    await mvm.ok(["template", "init", "web", "--local", "--pkgs", "host", "--dir", work]);
    flake = readFileSync(join(work, "flake.nix"), "utf8");
    await mvm.ok(["template", "create", "web", "--flake", work, "--mem", "256"]);
    await mvm.ok(["template", "build", "web"]);
  });
  after(() => {
    mvm[Symbol.dispose]();
    rmSync(work, { recursive: true, force: true });
  });
  const currentOf = async () => (await mvm.json<{ current: string }>(["template", "info", "web"])).current;
  const writeFlake = (text: string) => writeFileSync(join(work, "flake.nix"), text);

  test("a scaffold that was written on another machine builds here, and its flake.lock is written", async () => {
    writeFlake(flake.replace(/"path:[^"]*"/, '"path:/opt/elsewhere/mvmctl/nix"'));
    rmSync(join(work, "flake.lock"));
    await mvm.ok(["template", "build", "web"]);
    assert.match(readFileSync(join(work, "flake.lock"), "utf8"), /opt\/elsewhere/);
    rmSync(join(work, "flake.lock"));
    writeFlake(flake);
  });

  test("a health check that never passes fails the snapshot, names itself, and leaves the revision and no VM", async () => {
    writeFlake(flake.replace(/healthHttp = "[^"]*"/, 'healthCmd = "echo the reason is here; exit 3"'));
    const text = await mvm.fails(["template", "build", "web", "--snapshot", "--timeout", "20"], "SNAPSHOT_FAILED");
    assert.match(text, /step 'wait until healthy'/);
    assert.match(text, /the reason is here/);
    assert.match(text, /exit code 3/);
    assert.deepEqual(findVmProcesses(mvm.dataDir), []);
    const info = await mvm.json<{ current: string; revisions: { id: string; snapshots: unknown[] }[] }>([
      "template",
      "info",
      "web",
    ]);
    assert.deepEqual(info.revisions.find(({ id }) => id === info.current)?.snapshots, []);
  });

  test("a guest that was healthy and is not any more when it is captured fails the snapshot, and names the check", async () => {
    const once = "test ! -e /tmp/healthy-once || { echo not any more; exit 4; }; touch /tmp/healthy-once";
    writeFlake(flake.replace(/healthHttp = "[^"]*"/, `healthCmd = "${once}"`));
    const text = await mvm.fails(["template", "build", "web", "--snapshot", "--timeout", "60"], "SNAPSHOT_FAILED");
    assert.match(text, /step 'prepare the guest'/);
    assert.match(text, /not any more/);
    assert.deepEqual(findVmProcesses(mvm.dataDir), []);
  });

  test("a service that crashes again and again fails the snapshot, with its exit", async () => {
    writeFlake(flake.replace(/command = [^;]*;/, 'command = "echo about to crash; exit 5";'));
    const text = await mvm.fails(["template", "build", "web", "--snapshot", "--timeout", "60"], "SNAPSHOT_FAILED");
    assert.match(text, /code 5/);
  });

  test("an evaluation error is Nix's own message", async () => {
    writeFlake("{ outputs = { self }: { packages.x86_64-linux.default = this-is-not-defined; }; }");
    assert.match(
      await mvm.fails(["template", "build", "web"], "NIX_FAILED"),
      /undefined variable 'this-is-not-defined'/,
    );
  });

  test("a flake without the package says which there are", async () => {
    writeFlake('{ outputs = { self }: { packages.x86_64-linux.other = throw "never evaluated"; }; }');
    assert.match(await mvm.fails(["template", "build", "web"], "PACKAGE_NOT_FOUND"), /it has other/);
    writeFlake("{ outputs = { self }: { }; }");
    assert.match(await mvm.fails(["template", "build", "web"], "PACKAGE_NOT_FOUND"), /it has no packages for/);
  });

  test("an output without a kernel says what is missing and what is there", async () => {
    const text = "not an image";
    writeFileSync(join(work, "text"), text);
    // A fixed output that the store has already needs no builder: the package is one file.
    assert.equal((await run("nix-store", ["--add-fixed", "sha256", join(work, "text")])).exitCode, 0);
    const sha256 = createHash("sha256").update(text).digest("hex");
    const attributes = `name = "text"; system = "builtin"; builder = "builtin:fetchurl"; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "${sha256}";`;
    writeFlake(`{ outputs = { self }: { packages.x86_64-linux.default = derivation { ${attributes} }; }; }`);
    const said = await mvm.fails(["template", "build", "web"], "IMAGE_INCOMPLETE");
    assert.match(said, /lacks a kernel \(vmlinux or bzImage\) and a root file system/);
    assert.match(said, /a single file/);
  });

  test("kill -9 of build --snapshot at any moment leaves nothing that the next command does not remove", async () => {
    writeFlake(flake);
    const build = ["template", "build", "web", "--snapshot", "--force"];
    const toMs = await durationOf(mvm, build);
    const built = await currentOf();
    await atRandomMoments(mvm, { count: 20, toMs }, async (kill) => {
      await kill(build);
      await until("the temporary VM ends with its parent", () => findVmProcesses(mvm.dataDir).length === 0);
      assert.equal(await currentOf(), built);
      await requireSound(mvm);
    });
    await mvm.ok(build);
    await requireSound(mvm);
    assert.equal((await start(mvm, "web", "after")).start, "restored");
    await mvm.ok(["rm", "--force", "after"]);
  });

  test("two builds of one template at once give the same revision", async () => {
    const both = await Promise.all(
      [1, 2].map(() => mvm.json<{ revision: string }>(["template", "build", "web", "--force"])),
    );
    assert.equal(both[0]?.revision, both[1]?.revision);
  });
});
