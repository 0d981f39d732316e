import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { resolvePaths } from "../../src/core/paths.ts";
import { run } from "../../src/core/process.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { type MadeTemplate, makeTemplate } from "../support/registry.ts";
import { type S3Server, startS3rver, startVersitygw, VERSITYGW } from "../support/s3-server.ts";
import { until as untilTrue } from "../support/wait.ts";

/** Whole pushes and pulls through a network that fails: a proxy makes the faults in front of a real server. */
describe("pushing and pulling while the network fails", () => {
  let server: S3Server;
  let proxy: FaultProxy;
  let alice: Mvmctl;
  let bob: Mvmctl;
  let made: MadeTemplate;
  before(async () => {
    server = await (VERSITYGW ? startVersitygw() : startS3rver());
    proxy = await startFaultProxy(server.options.endpoint);
    alice = useMvmctl(server.env(proxy.endpoint.href));
    made = makeTemplate(resolvePaths(alice.env), "web");
    await alice.ok(["template", "push", "web"]);
  });
  beforeEach(() => {
    bob = useMvmctl(server.env(proxy.endpoint.href));
  });
  afterEach(() => {
    proxy.clear();
    bob[Symbol.dispose]();
  });
  after(async () => {
    alice[Symbol.dispose]();
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });
  const nothingPublished = async () => assert.deepEqual(await bob.json(["template", "list"]), []);

  test("a bit that is flipped on its way is fetched again", async () => {
    const rule = proxy.on({ method: "GET", path: /blobs/ }, { kind: "flip", offset: 100_000 });
    await bob.ok(["template", "pull", "web"]);
    assert.equal(rule.used, 1);
    await bob.ok(["template", "verify", "web"]);
  });

  test("a connection that is cut goes on where it was, and one that always is cut ends in words", async () => {
    proxy.on({ method: "GET", path: /blobs/ }, { kind: "cut", after: 50_000 });
    await bob.ok(["template", "pull", "web"]);
    await bob.ok(["template", "delete", "web", "--yes"]);
    proxy.on({ method: "GET", path: /revisions/, times: Infinity }, { kind: "cut", after: 10 });
    assert.match(await bob.fails(["template", "pull", "web"], "REGISTRY_SHORT_READ"), /broke off/);
    await nothingPublished();
  });

  test("bytes beyond what was declared, and a body without end, are not taken", async () => {
    proxy.on({ method: "GET", path: /revisions/, times: Infinity }, { kind: "endless" });
    const { exitCode, stderr } = await bob.run(["template", "pull", "web"]);
    assert.equal(exitCode, 1);
    assert.match(stderr, /^error: /m);
    await nothingPublished();
  });

  test("a server that is busy is asked again, one that refuses is not", async () => {
    const busy = proxy.on({ path: /tags/ }, { kind: "answer", status: 503 });
    await bob.ok(["template", "pull", "web"]);
    assert.ok(busy.used === 1 && busy.matched > 1);
    await bob.ok(["template", "delete", "web", "--yes"]);
    const refusing = proxy.on({ path: /tags/, times: Infinity }, { kind: "answer", status: 403 });
    await bob.fails(["template", "pull", "web"], "REGISTRY_DENIED");
    assert.equal(refusing.used, 1);
  });

  test("no space in the middle of a pull is said, and with space again it goes on where it stopped", async (t) => {
    const small = join(bob.dataDir, "small");
    mkdirSync(small);
    const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=24m", "small", small]);
    if (mounted.exitCode !== 0) return t.skip(`a small file system can't be mounted: ${mounted.stderr.trim()}`);
    try {
      const there = { env: { MVM_DATA_DIR: join(small, "data") } };
      const filler = join(small, "filler");
      let full = () => {};
      const until = new Promise<void>((resolve) => {
        full = resolve;
      });
      const rule = proxy.on({ method: "GET", path: /blobs/ }, { kind: "hold", until });
      const pulling = bob.fails(["template", "pull", "web"], "DISK_FULL", there);
      await untilTrue("space was checked, and content is asked for", () => rule.used > 0);
      const filling = await run("dd", ["if=/dev/zero", `of=${filler}`, "bs=64k"]);
      assert.match(filling.stderr, /No space left/);
      full();
      assert.match(await pulling, /free some space/);
      assert.deepEqual(await bob.json(["template", "list"], there), []);
      rmSync(filler);
      await bob.ok(["template", "pull", "web"], there);
      await bob.ok(["template", "verify", "web"], there);
    } finally {
      await run("umount", ["-l", small]);
    }
  });

  test("an answer to a tag's move that is lost does not look like somebody else's move", async () => {
    makeTemplate(resolvePaths(alice.env), "web", { change: "lost", builtAt: "2026-06-01T00:00:00.000Z" });
    const rule = proxy.on({ method: "PUT", path: /tags/ }, { kind: "drop", afterServer: true });
    const pushed = await alice.json<{ revision: string }>(["template", "push", "web"]);
    assert.equal(rule.used, 1);
    assert.notEqual(pushed.revision, made.id);
    assert.equal((await bob.json<{ revision: string }>(["template", "pull", "web"])).revision, pushed.revision);
  });
});

describe("two pushes of one tag at once, on a store that ignores conditions", () => {
  test("one wins, the other is told", async () => {
    await using server = await startS3rver();
    const env = server.env();
    using alice = useMvmctl(env);
    using carol = useMvmctl(env);
    for (let round = 0; round < 3; round++) {
      const builtAt = `2026-05-01T00:00:0${round}.000Z`;
      makeTemplate(resolvePaths(alice.env), "web", { change: `ours ${round}`, builtAt });
      makeTemplate(resolvePaths(carol.env), "web", { change: `theirs ${round}`, builtAt });
      const push = (who: Mvmctl) => who.run(["template", "push", "web", "--json"]);
      const results = await Promise.all([push(alice), push(carol)]);
      const won = results.filter(({ exitCode }) => exitCode === 0).map(({ stdout }) => JSON.parse(stdout).revision);
      assert.ok(won.length >= 1, results.map(({ stderr }) => stderr).join("\n"));
      for (const { exitCode, stderr } of results) if (exitCode !== 0) assert.match(stderr, /TAG_MOVED/);
      using bob = useMvmctl(env);
      const { revision } = await bob.json<{ revision: string }>(["template", "pull", "web"]);
      assert.ok(won.includes(revision));
    }
  });
});
