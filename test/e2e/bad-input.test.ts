import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { findProgram, run } from "../../src/core/process.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";

const HELLO = join(REPOSITORY, "examples", "hello");

describe("what is typed wrong gets a clear answer, and nothing is lost", () => {
  let mvm: Mvmctl;
  let work: string;
  before(async () => {
    mvm = useMvmctl();
    work = mkdtempSync(join(tmpdir(), "mvm-work-"));
    await mvm.ok(["template", "create", "good", "--flake", HELLO]);
  });
  after(() => {
    mvm[Symbol.dispose]();
    rmSync(work, { recursive: true, force: true });
  });

  test("an unknown template, and one that was never built", async () => {
    assert.match(await mvm.fails(["run", "--template", "godo"], "TEMPLATE_NOT_FOUND"), /godo/);
    assert.match(await mvm.fails(["template", "build", "godo"], "TEMPLATE_NOT_FOUND"), /good|create/);
    assert.match(await mvm.fails(["run", "--template", "good"], "NOT_BUILT"), /template build good/);
  });

  test("names that could leave their place", async () => {
    for (const name of ["../evil", "Upper", "x".repeat(300), "", ".hidden", "a/b", "a\nb"]) {
      await mvm.fails(["template", "create", name, "--flake", HELLO], "INVALID_NAME");
      await mvm.fails(["run", "--template", "good", "--name", name], "INVALID_NAME");
    }
    assert.equal((await mvm.run(["template", "create", "../evil"])).exitCode, 2);
    assert.equal(existsSync(join(mvm.dataDir, "evil")), false);
  });

  test("a flake that is not there is named", async () => {
    assert.match(
      await mvm.fails(["template", "create", "lost", "--flake", "/no/such/place"], "FLAKE_NOT_FOUND"),
      /\/no\/such\/place/,
    );
    assert.match(await mvm.fails(["template", "create", "lost", "--flake", work], "FLAKE_NOT_FOUND"), /flake\.nix/);
  });

  test("sizes that make no sense", async () => {
    for (const [option, value] of [
      ["--mem", "10"],
      ["--mem", "abc"],
      ["--cpus", "0"],
      ["--cpus", "-1"],
      ["--data-disk", "1"],
    ] as const) {
      assert.match(
        await mvm.fails(["template", "create", "sized", "--flake", HELLO, option, value], "INVALID_SIZE"),
        new RegExp(option),
      );
    }
  });

  test("options of a snapshot that was not asked for", async () => {
    for (const option of [
      ["--hypervisor", "qemu"],
      ["--timeout", "60"],
    ] as const)
      assert.match(await mvm.fails(["template", "build", "good", ...option], "USAGE"), /add --snapshot/);
  });

  test("ports, volumes and variables that are none", async () => {
    const runs = (...more: string[]) => ["run", "--template", "good", ...more];
    await mvm.fails(runs("-p", "80:"), "INVALID_PORT");
    await mvm.fails(runs("-p", "80:0"), "INVALID_PORT");
    await mvm.fails(runs("-v", "relative"), "INVALID_VOLUME");
    await mvm.fails(runs("-v", "/no/such/directory:/mnt/config"), "VOLUME_NOT_FOUND");
    await mvm.fails(runs("--env", "novalue"), "USAGE");
    await mvm.fails(runs("--flake", HELLO), "USAGE");
  });

  test("run is told one template, in either way", async () => {
    assert.match(await mvm.fails(["run", "one"], "TEMPLATE_NOT_FOUND"), /'one'/);
    assert.match(await mvm.fails(["run", "one", "--template", "two"], "USAGE"), /one and two/);
    await mvm.fails(["run", "one", "--flake", "."], "USAGE");
    await mvm.fails(["run"], "USAGE");
  });

  test("a data directory where none can be made is no reason to hang", async () => {
    const env = { MVM_DATA_DIR: "/proc" };
    assert.equal((await mvm.run(["ls"], { env, timeoutMs: 60_000 })).exitCode, 0);
    const create = ["template", "create", "web", "--flake", join(REPOSITORY, "examples", "hello")];
    await mvm.fails(create, "FILE_FAILED", { env, timeoutMs: 60_000 });
  });

  test("stop is told either names or all", async () => {
    assert.match(await mvm.fails(["stop"], "USAGE"), /was not said/);
    assert.match(await mvm.fails(["stop", "--all", "svc"], "USAGE"), /two things/);
  });

  test("a command that does not exist is answered with the nearest one, and exit code 2", async () => {
    const result = await mvm.run(["template", "biuld", "x"]);
    assert.equal(result.exitCode, 2);
    assert.match(result.stderr, /did you mean `mvmctl template build`/);
    assert.equal((await mvm.run(["ls", "--nonsense"])).exitCode, 2);
  });

  test("a damaged template breaks only itself", async () => {
    mkdirSync(join(mvm.dataDir, "templates", "bad"));
    for (const content of ["", "{", '{"version":1}', '{"version":99}']) {
      writeFileSync(join(mvm.dataDir, "templates", "bad", "template.json"), content);
      const states = await mvm.json<{ name: string; state: string; reason?: string }[]>(["template", "list"]);
      assert.deepEqual(
        states.map(({ name, state }) => [name, state]),
        [
          ["bad", "broken"],
          ["good", "ok"],
        ],
      );
      const said = await mvm.run(["template", "info", "bad"]);
      assert.equal(said.exitCode, 1);
      assert.match(said.stderr, content.includes("99") ? /newer mvmctl/ : /template\.json is damaged/);
    }
    await mvm.ok(["template", "delete", "bad", "--yes"]);
    await mvm.ok(["template", "info", "good"]);
  });

  test("deleting asks, and where nobody can answer it wants --yes", async () => {
    assert.equal((await mvm.run(["template", "delete", "good"])).exitCode, 2);
    await mvm.ok(["template", "info", "good"]);
  });

  test("create-multi makes all or none", async () => {
    await mvm.ok(["template", "create", "shop-gateway", "--flake", HELLO]);
    assert.match(
      await mvm.fails(
        ["template", "create-multi", "shop", "--flake", HELLO, "--roles", "worker,gateway"],
        "TEMPLATE_EXISTS",
      ),
      /shop-gateway/,
    );
    assert.equal(existsSync(join(mvm.dataDir, "templates", "shop-worker")), false);
    await mvm.ok(["template", "create-multi", "store", "--flake", HELLO, "--roles", "worker,gateway"]);
    assert.equal(
      (await mvm.json<{ spec: { role: string } }>(["template", "info", "store-gateway"])).spec.role,
      "gateway",
    );
  });

  test("edit says that a rebuild is needed", async () => {
    await mvm.ok(["template", "edit", "good", "--mem", "2048"]);
    assert.equal((await mvm.json<{ spec: { memMiB: number } }>(["template", "info", "good"])).spec.memMiB, 2048);
    await mvm.fails(["template", "edit", "good", "--mem", "10"], "INVALID_SIZE");
  });

  test("init writes nothing over files that are there", async () => {
    const place = join(work, "scaffold");
    mkdirSync(place);
    writeFileSync(join(place, "README.md"), "mine");
    assert.match(await mvm.fails(["template", "init", "web", "--local", "--dir", place], "FILES_EXIST"), /README\.md/);
    assert.equal(readFileSync(join(place, "README.md"), "utf8"), "mine");
    assert.equal(existsSync(join(place, "flake.nix")), false);
  });

  test("a missing QEMU and a missing Nix are named, with what to install", async () => {
    const env = { PATH: emptyPath(work), MVM_QEMU_BIN: "/no/such/qemu" };
    assert.match(await mvm.fails(["template", "build", "good"], "NIX_MISSING", { env }), /apt-get install nix-bin/);
    assert.match(
      await mvm.fails(["template", "build", "good", "--snapshot"], "HYPERVISOR_MISSING", {
        env: { MVM_QEMU_BIN: "/no/such/qemu" },
      }),
      /apt-get install qemu-system-x86/,
    );
  });

  test("an older Node.js is told what is needed, in one line", async (t) => {
    const old = findProgram("/usr/bin/node", {});
    const version = old ? (await run(old, ["--version"])).stdout : "";
    if (!old || Number(/^v(\d+)/.exec(version)?.[1]) >= 24)
      return t.skip("this machine has no older Node.js at /usr/bin/node");
    const result = await run(old, [join(REPOSITORY, "bin", "mvmctl.js"), "ls"]);
    assert.equal(result.exitCode, 1);
    assert.match(result.stderr, /needs Node\.js 24/);
    assert.equal(result.stderr.trim().split("\n").length, 1);
  });

  test("no colour in a pipe", async () => {
    assert.doesNotMatch((await mvm.run(["template", "biuld"], { env: { NO_COLOR: "" } })).stderr, /\x1b/);
  });
});

/** A PATH with Node and little else. */
function emptyPath(work: string): string {
  const directory = join(work, "bin");
  mkdirSync(directory, { recursive: true });
  chmodSync(directory, 0o755);
  symlinkSync(process.execPath, join(directory, "node"));
  return directory;
}
