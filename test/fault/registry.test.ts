import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { resolvePaths } from "../../src/core/paths.ts";
import { run } from "../../src/core/process.ts";
import { LAUNCHER, type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { type MadeTemplate, makeTemplate } from "../support/registry.ts";

/** The command line against a directory registry into which a test reaches by hand. */
describe("a registry that is wrong, and commands that are killed", () => {
  let alice: Mvmctl;
  let bob: Mvmctl;
  let registry: string;
  let made: MadeTemplate;

  before(() => {
    alice = useMvmctl();
    registry = join(alice.dataDir, "the registry");
    alice.env["MVM_TEMPLATE_REGISTRY_ENDPOINT"] = `file://${registry.replace(" ", "%20")}`;
    made = makeTemplate(resolvePaths(alice.env), "web");
  });
  beforeEach(async () => {
    bob?.[Symbol.dispose]();
    bob = useMvmctl({ MVM_TEMPLATE_REGISTRY_ENDPOINT: alice.env["MVM_TEMPLATE_REGISTRY_ENDPOINT"] });
    rmSync(registry, { recursive: true, force: true });
    mkdirSync(registry);
    makeTemplate(resolvePaths(alice.env), "web");
    await alice.run(["template", "delete", "web", "--yes"]);
    made = makeTemplate(resolvePaths(alice.env), "web");
    await alice.ok(["template", "push", "web"]);
  });
  after(() => {
    alice[Symbol.dispose]();
    bob[Symbol.dispose]();
  });

  const object = (...parts: string[]) => join(registry, "v1", ...parts);
  const record = () => object("templates", "web", "revisions", `${made.id}.json`);
  const tag = () => object("templates", "web", "tags", "latest.json");
  async function nothingPublished(): Promise<void> {
    assert.deepEqual(await bob.json(["template", "list"]), []);
    const left = readdirSync(bob.dataDir, { recursive: true, encoding: "utf8" });
    assert.deepEqual(
      left.filter((path) => path.includes(".staging-")),
      [],
    );
  }

  test("one bit of a blob is flipped: file, chunk and both digests are named, and nothing is published", async () => {
    const { files, blobs } = JSON.parse(readFileSync(record(), "utf8"));
    const [digest, blob, offset, length] = files[1].chunks[2];
    flip(object("blobs", blobs[blob]), offset + Math.floor(length / 2));
    const said = await bob.fails(["template", "pull", "web"], "CHUNK_DAMAGED");
    assert.match(said, /chunk 2 of rootfs\.erofs/);
    assert.match(said, new RegExp(`SHA-256 is [0-9a-f]{64} instead of ${digest}`));
    await nothingPublished();
    flip(object("blobs", blobs[blob]), offset + Math.floor(length / 2));
    await bob.ok(["template", "pull", "web"]);
  });

  test("a record of a GiB is refused before it is read", async () => {
    truncateSync(record(), 1024 ** 3);
    await bob.fails(["template", "pull", "web"], "REGISTRY_OBJECT_TOO_LARGE");
    await nothingPublished();
  });

  test("a record with millions of entries, or nested without end, is refused in little memory", async () => {
    const good = readFileSync(record(), "utf8");
    for (const costly of ["1,".repeat(8_000_000), "[".repeat(8_000_000)]) {
      writeFileSync(record(), good.replace('"files":[', `"files":[${costly}`));
      const env = { NODE_OPTIONS: "--max-old-space-size=64" };
      await bob.fails(["template", "pull", "web"], "REGISTRY_CORRUPT", { env });
    }
    await nothingPublished();
  });

  test("a record that is not what it should be is refused, with the way to mend it", async () => {
    writeFileSync(record(), readFileSync(record(), "utf8").replace("rootfs.erofs", "../../root.erofs"));
    assert.match(await bob.fails(["template", "pull", "web"], "REGISTRY_CORRUPT"), /push the template again/);
    await nothingPublished();
    await alice.ok(["template", "push", "web"]);
    await bob.ok(["template", "pull", "web"]);
  });

  test("a record of a newer mvmctl says so", async () => {
    writeFileSync(record(), readFileSync(record(), "utf8").replace('"version":1', '"version":2'));
    assert.match(await bob.fails(["template", "pull", "web"], "NEWER_VERSION"), /update mvmctl/);
    await nothingPublished();
  });

  test("chunks that are right one by one, in the wrong places, are found by the file's digest", async () => {
    const value = JSON.parse(readFileSync(record(), "utf8"));
    const { chunks } = value.files[1];
    [chunks[0], chunks[1]] = [chunks[1], chunks[0]];
    writeFileSync(record(), JSON.stringify(value));
    assert.match(await bob.fails(["template", "pull", "web"], "ARTIFACT_DAMAGED"), /rootfs\.erofs/);
    await nothingPublished();
  });

  test("names that climb out are refused before anything is asked of the registry", async () => {
    for (const name of ["../../x", "/abs", "a".repeat(300), "wеb", "A", "web:../x", "web@../x"])
      assert.notEqual((await bob.run(["template", "pull", name])).exitCode, 0, name);
    await bob.fails(["template", "pull", "../../x"], "INVALID_NAME");
    await nothingPublished();
  });

  test("with trusted keys: unsigned, another key, altered bytes and another tag's signature are refused", async () => {
    const mine = join(alice.dataDir, `${randomUUID()}.pem`);
    const other = join(alice.dataDir, `${randomUUID()}.pem`);
    const { publicKey } = await alice.json<{ publicKey: string }>(["registry", "keygen", mine]);
    await alice.ok(["registry", "keygen", other]);
    writeFileSync(
      join(bob.dataDir, "config.json"),
      JSON.stringify({ version: 1, registry: { trustedKeys: [publicKey] } }),
    );
    assert.match(await bob.fails(["template", "pull", "web"], "UNTRUSTED"), /not signed/);
    await alice.ok(["template", "push", "web", "--key", other]);
    assert.match(await bob.fails(["template", "pull", "web"], "UNTRUSTED"), /does not trust/);
    await alice.ok(["template", "push", "web", "--key", mine]);
    // A signed tag under another name, and a record whose signed facts were changed.
    const good = readFileSync(tag(), "utf8");
    writeFileSync(object("templates", "web", "tags", "v2.json"), good.replace('"tag":"latest"', '"tag":"v2"'));
    assert.match(await bob.fails(["template", "pull", "web:v2"], "UNTRUSTED"), /over something else/);
    const snapshots = object("templates", "web", "revisions", made.id);
    const snapshot = join(snapshots, readdirSync(snapshots)[0]!);
    const signed = readFileSync(snapshot, "utf8");
    const altered = JSON.parse(signed);
    altered.document = altered.document.replace('"cpus": 2', '"cpus": 3');
    writeFileSync(snapshot, JSON.stringify(altered));
    assert.match(await bob.fails(["template", "pull", "web"], "UNTRUSTED"), /over something else/);
    await nothingPublished();
    writeFileSync(snapshot, signed);
    await bob.ok(["template", "pull", "web"]);
  });

  test("the memory of one snapshot with the state of another is refused", async () => {
    const snapshots = object("templates", "web", "revisions", made.id);
    const path = join(snapshots, readdirSync(snapshots)[0]!);
    const mixed = JSON.parse(readFileSync(path, "utf8"));
    const [state, memory] = mixed.files;
    [state.sha256, memory.sha256] = [memory.sha256, state.sha256];
    writeFileSync(path, JSON.stringify(mixed));
    await bob.fails(["template", "pull", "web"], "REGISTRY_CORRUPT");
    await nothingPublished();
  });

  test("a tag that went back to an older build is refused on both sides, unless that is said", async () => {
    const old = made.id;
    makeTemplate(resolvePaths(alice.env), "web", { change: "newer", builtAt: "2026-03-01T00:00:00.000Z" });
    const before = readFileSync(tag(), "utf8");
    await alice.ok(["template", "push", "web"]);
    await bob.ok(["template", "pull", "web"]);
    await alice.fails(["template", "push", `web@${old}`], "TAG_ROLLBACK");
    writeFileSync(tag(), before); // as a registry that lies would
    await bob.fails(["template", "pull", "web"], "TAG_ROLLBACK");
    assert.notEqual((await bob.json<{ current: string }>(["template", "info", "web"])).current, old);
    await bob.ok(["template", "pull", "web", "--allow-rollback"]);
    assert.equal((await bob.json<{ current: string }>(["template", "info", "web"])).current, old);
  });

  test("a link, a pipe or a directory where a file is about to be written is never followed", async () => {
    const partial = join(bob.dataDir, "cache", "pulls", `web-${made.id}`);
    const victim = join(bob.dataDir, "victim");
    mkdirSync(partial, { recursive: true });
    writeFileSync(victim, "precious");
    symlinkSync(victim, join(partial, "rootfs.erofs"));
    linkSync(victim, join(partial, "vmlinux"));
    const snapshot = join(partial, "snapshots", basename(made.snapshot));
    mkdirSync(snapshot, { recursive: true });
    assert.equal((await run("mkfifo", [join(snapshot, "mem.bin")])).exitCode, 0);
    mkdirSync(join(snapshot, "vmstate.bin"));
    await bob.ok(["template", "pull", "web"]);
    assert.equal(readFileSync(victim, "utf8"), "precious");
    await bob.ok(["template", "verify", "web"]);
  });

  for (const [what, linked] of [
    ["what was fetched", () => ["cache", "pulls", `web-${made.id}`]],
    ["its snapshots", () => ["cache", "pulls", `web-${made.id}`, "snapshots"]],
    ["one of its snapshots", () => ["cache", "pulls", `web-${made.id}`, "snapshots", basename(made.snapshot)]],
    ["all pulls", () => ["cache", "pulls"]],
  ] as const) {
    test(`a link where the directory of ${what} should be is never followed`, async () => {
      const link = join(bob.dataDir, ...linked());
      const victim = join(bob.dataDir, "victim");
      mkdirSync(victim);
      writeFileSync(join(victim, "rootfs.erofs"), "precious");
      utimesSync(join(victim, "rootfs.erofs"), 0, 0); // old, as what a forgotten pull left
      mkdirSync(dirname(link), { recursive: true });
      symlinkSync(victim, link);
      await bob.ok(["template", "pull", "web"]);
      assert.deepEqual(readdirSync(victim), ["rootfs.erofs"]);
      assert.equal(readFileSync(join(victim, "rootfs.erofs"), "utf8"), "precious");
      await bob.ok(["template", "verify", "web"]);
    });
  }

  test("an object of a directory registry that is a link is not read", async () => {
    renameSync(record(), join(alice.dataDir, "elsewhere"));
    symlinkSync(join(alice.dataDir, "elsewhere"), record());
    await bob.fails(["template", "pull", "web"], "REGISTRY_UNSAFE_PATH");
  });

  test("kill -9 of a push at any moment leaves the tag old or new, and the next push completes it", async () => {
    for (let round = 0; round < 20; round++) {
      makeTemplate(resolvePaths(alice.env), "web", {
        change: `p${round}`,
        seed: `p${round}`,
        builtAt: `2026-04-01T00:00:${10 + round}.000Z`,
      });
      const before = readFileSync(tag(), "utf8");
      await killed(alice, ["template", "push", "web"], 60 + round * 25);
      const now = readFileSync(tag(), "utf8");
      if (now !== before) await alice.ok(["template", "verify", "web", "--remote"]);
      await alice.ok(["template", "push", "web"]);
      await alice.ok(["template", "verify", "web", "--remote"]);
    }
    await alice.ok(["registry", "gc", "--grace", "0"]);
    await alice.ok(["template", "verify", "web", "--remote"]);
    await bob.ok(["template", "pull", "web"]);
  });

  test("kill -9 of a pull at any moment leaves the old state or the new one", async () => {
    for (let round = 0; round < 20; round++) {
      await killed(bob, ["template", "pull", "web"], 60 + round * 20);
      const list = await bob.json<{ name: string }[]>(["template", "list"]);
      if (list.length > 0) {
        await bob.ok(["template", "verify", "web"]);
        await bob.ok(["template", "delete", "web", "--yes"]);
      }
    }
    await bob.ok(["template", "pull", "web"]);
    await bob.ok(["template", "verify", "web"]);
    assert.deepEqual(readdirSync(join(bob.dataDir, "cache", "pulls")), []);
    const left = readdirSync(bob.dataDir, { recursive: true, encoding: "utf8" });
    assert.deepEqual(
      left.filter((path) => path.includes(".staging-")),
      [],
    );
  });

  test("Ctrl+C stops a push and a pull cleanly", async () => {
    for (const [who, verb] of [
      [alice, "push"],
      [bob, "pull"],
    ] as const) {
      const child = spawn(process.execPath, [LAUNCHER, "template", verb, "web"], {
        env: who.env,
        stdio: ["ignore", "ignore", "pipe"],
      });
      const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
      child.stderr.once("data", () => child.kill("SIGINT"));
      assert.ok([130, 0].includes((await ended)!), "130, unless it was done before");
    }
    await bob.ok(["template", "pull", "web"]);
  });

  test("a disk that is too small is found before anything is fetched, and what was there stays", async (t) => {
    const small = join(bob.dataDir, "small");
    mkdirSync(small);
    const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=8m", "small", small]);
    if (mounted.exitCode !== 0) return t.skip(`a small file system can't be mounted: ${mounted.stderr.trim()}`);
    try {
      writeFileSync(join(small, "mine"), "precious");
      const full = { env: { MVM_DATA_DIR: small } };
      assert.match(await bob.fails(["template", "pull", "web"], "DISK_FULL", full), /needs .* has .* free/);
      assert.equal(readFileSync(join(small, "mine"), "utf8"), "precious");
      assert.equal(existsSync(join(small, "templates", "web")), false);
    } finally {
      await run("umount", [small]);
    }
  });

  test("of two pushes of one tag at once one wins, and the other is told", async () => {
    using carol = useMvmctl({ MVM_TEMPLATE_REGISTRY_ENDPOINT: alice.env["MVM_TEMPLATE_REGISTRY_ENDPOINT"] });
    for (let round = 0; round < 4; round++) {
      const builtAt = `2026-05-01T00:00:0${round}.000Z`;
      const ours = makeTemplate(resolvePaths(alice.env), "web", { change: `ours ${round}`, builtAt });
      const theirs = makeTemplate(resolvePaths(carol.env), "web", { change: `theirs ${round}`, builtAt });
      const push = (who: Mvmctl) => who.run(["template", "push", "web", "--json"]);
      const results = await Promise.all([push(alice), push(carol)]);
      const { revision } = JSON.parse(readFileSync(tag(), "utf8"));
      assert.ok([ours.id, theirs.id].includes(revision));
      for (const [index, { exitCode, stderr }] of results.entries()) {
        // Both succeed only when one began after the other had ended.
        if (exitCode !== 0) assert.match(stderr, /TAG_MOVED/);
        else if (results.some((one) => one.exitCode !== 0)) assert.equal(revision, [ours, theirs][index]!.id);
      }
      assert.ok(results.some(({ exitCode }) => exitCode === 0));
      await alice.ok(["template", "verify", "web", "--remote"]);
    }
  });

  test("of two pulls of one template at once one does the work, and both succeed", async () => {
    const pull = () => bob.json<{ upToDate: boolean; revision: string }>(["template", "pull", "web"]);
    const [first, second] = await Promise.all([pull(), pull()]);
    assert.equal(first.revision, second.revision);
    assert.deepEqual([first.upToDate, second.upToDate].sort(), [false, true]);
    await bob.ok(["template", "verify", "web"]);
  });

  test("no secret of the environment reaches the registry or what is said", async () => {
    const canary = `canary-${randomUUID()}`;
    const env = { MVM_TEMPLATE_REGISTRY_SECRET_ACCESS_KEY: canary, AWS_SECRET_ACCESS_KEY: canary };
    const { stderr, stdout } = await alice.run(["template", "push", "web", "--debug"], { env });
    assert.ok(!`${stderr}${stdout}`.includes(canary));
    const found = await run("grep", ["-rl", canary, registry]);
    assert.equal(found.stdout, "");
  });
});

/** Runs a command and kills it after so many milliseconds. */
async function killed(mvm: Mvmctl, args: readonly string[], afterMs: number): Promise<void> {
  const child = spawn(process.execPath, [LAUNCHER, ...args], { env: mvm.env, stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const timer = setTimeout(() => child.kill("SIGKILL"), afterMs);
  await ended;
  clearTimeout(timer);
}

function flip(path: string, offset: number): void {
  const fd = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, offset);
  byte[0]! ^= 1;
  writeSync(fd, byte, 0, 1, offset);
  closeSync(fd);
}
