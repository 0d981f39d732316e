import assert from "node:assert/strict";
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { run } from "../../src/core/process.ts";
import type { Check } from "../../src/host/check.ts";
import { LAUNCHER, type Mvmctl, useMvmctl } from "../support/mvmctl.ts";

interface Report {
  readonly ok: boolean;
  readonly checks: readonly Check[];
}

describe("mvmctl doctor", () => {
  let mvm: Mvmctl;
  before(() => {
    mvm = useMvmctl();
  });
  after(() => mvm[Symbol.dispose]());

  async function diagnose(env: NodeJS.ProcessEnv = {}, dataDir = mvm.dataDir): Promise<Report & { exitCode: number }> {
    const result = await mvm.run(["doctor", "--json"], { env: { ...env, MVM_DATA_DIR: dataDir } });
    return { ...(JSON.parse(result.stdout) as Report), exitCode: result.exitCode };
  }
  const about = ({ checks }: Report, subject: string) => checks.find((check) => check.subject === subject);

  test("on a machine that runs the other tests, the main job can be done", async () => {
    const report = await diagnose();
    assert.deepEqual([report.ok, report.exitCode], [true, 0], JSON.stringify(report.checks, null, 2));
    for (const subject of ["Node.js", "data directory", "Nix", "QEMU", "KVM", "memory", "disk"])
      assert.ok(about(report, subject), `${subject} was looked at`);
    assert.match(await mvm.ok(["doctor"]), /^ok +Node\.js +\d+\..*This machine can build and run templates/s);
  });

  test("without Nix and QEMU it can't, and the doctor says what to type", async () => {
    const report = await diagnose({ PATH: dirname(process.execPath) });
    assert.deepEqual([report.ok, report.exitCode], [false, 1]);
    assert.equal(about(report, "Nix")?.mend, "mvmctl setup");
    assert.match(about(report, "QEMU")?.mend ?? "", /apt-get install qemu-system-x86/);
    assert.equal(about(report, "cp")?.state, "failed");
  });

  test("a QEMU without the machine microvm, and a Nix whose flakes do not work", async () => {
    const bin = join(mvm.dataDir, "stand-ins");
    mkdirSync(bin);
    const standIn = (name: string, script: string) =>
      writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    standIn("qemu-system-x86_64", `case "$1" in --version) echo "QEMU emulator version 7.2.0";; *) echo pc;; esac`);
    standIn(
      "nix",
      `case "$1" in --version) echo "nix (Nix) 2.8.0";; *) echo "error: no such store" >&2; exit 1;; esac`,
    );
    const report = await diagnose({ PATH: `${bin}:${process.env["PATH"]}` });
    rmSync(bin, { recursive: true });
    assert.match(about(report, "QEMU")?.reason ?? "", /no machine microvm/);
    assert.match(about(report, "Nix")?.reason ?? "", /flakes can't be used: .*no such store/);
    assert.equal(report.exitCode, 1);
  });

  test("a Firecracker is named with its version", async () => {
    const binary = join(mvm.dataDir, "fc");
    writeFileSync(binary, '#!/bin/sh\necho "Firecracker v1.16.0"\n', { mode: 0o755 });
    assert.match(about(await diagnose({ MVM_FC_BIN: binary }), "Firecracker")?.reason ?? "", /1\.16\.0.*silent/);
    const bare = { MVM_FC_BIN: binary, PATH: dirname(process.execPath) };
    assert.match(about(await diagnose(bare), "slirp4netns")?.reason ?? "", /no network for Firecracker's VMs/);
    rmSync(binary);
    assert.match(about(await diagnose({ MVM_FC_BIN: binary }), "Firecracker")?.reason ?? "", /is no program/);
  });

  test("a configuration with an unknown key or a wrong type is named with its key", async () => {
    const path = join(mvm.dataDir, "config.json");
    for (const [text, said] of [
      ['{"version":1,"registri":{}}', /config\.json is damaged: .*registri/],
      ['{"version":1,"registry":{"bucket":7}}', /registry\.bucket: .*string/],
      ['{"version":9}', /newer mvmctl/],
    ] as const) {
      writeFileSync(path, text);
      const report = await diagnose();
      assert.equal(report.exitCode, 1);
      assert.match(about(report, "configuration")?.reason ?? "", said);
    }
    writeFileSync(path, '{"version":1,"registry":{"secretAccessKey":"hush"}}', { mode: 0o644 });
    const report = await diagnose();
    assert.deepEqual([about(report, "configuration")?.state, report.exitCode], ["warning", 0]);
    assert.doesNotMatch(JSON.stringify(report), /hush/);
    rmSync(path);
  });

  test("a data directory that can't be written fails, without a stack trace", async (t) => {
    const file = join(mvm.dataDir, "file");
    writeFileSync(file, "");
    const inFile = await mvm.run(["doctor"], { env: { MVM_DATA_DIR: join(file, "below") } });
    rmSync(file);
    const results = [inFile];
    const readOnly = `mount -t tmpfs -o ro none "$MVM_DATA_DIR" && exec "$0" "$1" doctor`;
    const program = ["--mount", "sh", "-c", readOnly, process.execPath, LAUNCHER];
    if (process.getuid?.() === 0) results.push(await run("unshare", program, { env: mvm.env }));
    else t.diagnostic("only root can mount a read-only file system: that part was left out");
    for (const result of results) {
      assert.equal(result.exitCode, 1, result.stderr);
      assert.match(result.stdout, /^failed +data directory .*(not a directory|read-only)/im);
      assert.doesNotMatch(result.stdout + result.stderr, /\n {4}at /);
    }
  });

  test("leftovers of killed commands are removed, damaged things are warnings", async () => {
    const dead = ".staging-999999-1-00000000-00000000-gone";
    const snapshot = "templates/web/revisions/some/snapshots/key";
    const places = ["", "instances", "templates/web/revisions", snapshot, "cache"].map((place) =>
      join(mvm.dataDir, place),
    );
    for (const place of places) mkdirSync(join(place, dead, "deep"), { recursive: true });
    mkdirSync(join(mvm.dataDir, "instances", "empty"));
    symlinkSync("/", join(mvm.dataDir, "templates", "web", "away"));
    const report = await diagnose();
    for (const place of places) assert.ok(!readdirSync(place).includes(dead), `${basename(place)} is clean`);
    assert.equal(about(report, "leftovers")?.reason, "removed 5 of killed commands");
    assert.equal(about(report, "instance empty")?.mend, "mvmctl rm empty --force");
    assert.equal(about(report, "template web")?.state, "warning");
    assert.equal(report.exitCode, 0);
    rmSync(join(mvm.dataDir, "instances"), { recursive: true });
    rmSync(join(mvm.dataDir, "templates"), { recursive: true });
    assert.equal(about(await diagnose(), "leftovers"), undefined);
  });
});
