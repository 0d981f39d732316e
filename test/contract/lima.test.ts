import assert from "node:assert/strict";
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { findProgram, run } from "../../src/core/process.ts";
import { limaStatus } from "../../src/host/lima/limactl.ts";
import { limaSetup } from "../../src/host/lima/setup.ts";
import { limaTemplate } from "../../src/host/lima/template.ts";
import { useDataDirectory } from "../support/data-directory.ts";
import { useLima } from "../support/lima.ts";

const NOBODY = 65534;

/** `MVM_TEST_LIMACTL`, or the one on the PATH. Never the stand-in: that believes everything. */
const LIMACTL = process.env["MVM_TEST_LIMACTL"] ?? findProgram("limactl", process.env);

describe("the VM's description", () => {
  const skip = LIMACTL ? false : "no limactl here: put a real one on the PATH, or name it in MVM_TEST_LIMACTL";
  for (const arch of ["x86_64", "aarch64"] as const) {
    // Lima takes `vz` only for the architecture of the machine that validates.
    const native = (process.arch === "arm64") === (arch === "aarch64");
    for (const vmType of native ? (["vz", "qemu"] as const) : (["qemu"] as const)) {
      test(`Lima itself finds it valid: ${arch}, ${vmType}`, { skip }, async () => {
        const filled = await validate(
          limaTemplate({ cpus: 3, memMiB: 2560, arch, vmType, nested: true, packageDirectory: '/it\'s "here"' }),
        );
        assert.match(filled, /^cpus: 3$/m);
        assert.match(filled, /^memory: 2560MiB$/m);
        assert.match(filled, /^nestedVirtualization: true$/m);
        assert.match(filled, /mountPoint: \/opt\/mvmctl\n {2}writable: false$/m);
        assert.match(filled, /^ {2}digest: sha512:[0-9a-f]{128}$/m);
      });
    }
  }

  test("Lima itself finds a mistake in it", { skip }, async () => {
    const yaml = limaTemplate({
      cpus: 3,
      memMiB: 2560,
      arch: "x86_64",
      vmType: "qemu",
      nested: false,
      packageDirectory: "/x",
    });
    await assert.rejects(validate(yaml.replace("memory:", "memory: many # ")), /memory/);
  });

  test("its scripts are bash without mistakes", async () => {
    const yaml = limaTemplate({
      cpus: 1,
      memMiB: 2048,
      arch: "aarch64",
      vmType: "vz",
      nested: true,
      packageDirectory: "/x",
    });
    const scripts = [...yaml.matchAll(/script: \|\n((?: {4}.*\n|\n)+)/g)].map(([, text]) =>
      text!.replace(/^ {4}/gm, ""),
    );
    assert.equal(scripts.length, 2);
    for (const input of scripts) assert.deepEqual((await run("bash", ["-n"], { input })).stderr, "");
  });
});

/** What Lima makes of a template, defaults filled in. Lima refuses to be root. */
async function validate(yaml: string): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "mvm-limactl-"));
  try {
    chmodSync(directory, 0o777);
    const path = join(directory, "mvmctl.yaml");
    writeFileSync(path, yaml);
    // Where another user may run it.
    const limactl = join(directory, "limactl");
    copyFileSync(LIMACTL!, limactl);
    const other = ["--reuid", String(NOBODY), "--regid", String(NOBODY), "--clear-groups", limactl];
    const [program, ...rest] = process.getuid?.() === 0 ? ["setpriv", ...other] : [limactl];
    const env = { PATH: process.env["PATH"], HOME: directory };
    const result = await run(program!, [...rest, "template", "validate", "--fill", path], { env, cwd: directory });
    if (result.exitCode !== 0) throw new Error(result.stderr);
    return result.stdout;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

describe("setting up the VM, with a stand-in for limactl", () => {
  test("creates it once, changes its size, and says first what it would do", async () => {
    using lima = useLima();
    using data = useDataDirectory();
    const context = { ...data.ctx, env: lima.env };
    const calls = () => lima.calls().filter((call) => call !== "'list' '--json'");
    lima.setVm(undefined);

    const planned = await limaSetup(context, { dryRun: true });
    assert.deepEqual(calls(), []);
    assert.deepEqual((await limaStatus(context)).state, "missing");

    assert.deepEqual(await limaSetup(context), planned);
    assert.equal((await limaStatus(context)).state, "running");
    const description = join(lima.home, ".mvm", "lima", "mvmctl.yaml");
    assert.match(readFileSync(description, "utf8"), /^cpus: \d+$/m);
    assert.equal(calls().length, 2);

    assert.deepEqual(await limaSetup(context), []);
    await limaSetup(context, { cpus: 3 });
    assert.equal((await limaStatus(context)).state, "running");
    const { directory } = await vmOf(context);
    assert.match(readFileSync(join(directory, "lima.yaml"), "utf8"), /^cpus: 3\nmemory: "2048MiB"$/m);
    assert.ok(!existsSync(join(directory, "lima.yaml.new")));
  });

  test("what limactl says goes into the error", async () => {
    using lima = useLima();
    using data = useDataDirectory();
    lima.setVm("Stopped");
    lima.makeStartFail();
    await assert.rejects(limaSetup({ ...data.ctx, env: lima.env }), { code: "LIMA_FAILED", detail: /exiting/ });
  });
});

async function vmOf(context: Parameters<typeof limaStatus>[0]) {
  const status = await limaStatus(context);
  assert.ok("vm" in status);
  return status.vm;
}
