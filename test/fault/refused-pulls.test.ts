import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import timers from "node:timers/promises";
import { CHUNK_BYTES } from "../../src/core/chunks.ts";
import { sha256 } from "../../src/core/digests.ts";
import { MvmError } from "../../src/core/errors.ts";
import { parseTemplateName } from "../../src/core/names.ts";
import { resolvePaths } from "../../src/core/paths.ts";
import { run } from "../../src/core/process.ts";
import { createContext, openStore, pullTemplate } from "../../src/index.ts";
import { fromFrame } from "../../src/registry/frames.ts";
import { DEFAULT_RETRIES, withRetries } from "../../src/registry/stores/s3/retry.ts";
import { failFileCalls } from "../support/failing-files.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { leftovers, requireSound } from "../support/kill.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { type MadeTemplate, makeTemplate, pullRequest } from "../support/registry.ts";
import { startS3rver } from "../support/s3-server.ts";

describe("what is pulled only when it is what it should be", () => {
  let alice: Mvmctl;
  let bob: Mvmctl;
  let registry: string;
  let made: MadeTemplate;
  let publicKey: string;
  before(async () => {
    registry = mkdtempSync(join(tmpdir(), "mvm-registry-"));
    alice = useMvmctl({ MVM_TEMPLATE_REGISTRY_ENDPOINT: `file://${registry}` });
    made = makeTemplate(resolvePaths(alice.env), "web");
    const key = join(alice.dataDir, "key.pem");
    ({ publicKey } = await alice.json<{ publicKey: string }>(["registry", "keygen", key]));
    await alice.ok(["template", "push", "web", "--key", key]);
  });
  beforeEach(() => {
    bob?.[Symbol.dispose]();
    bob = useMvmctl({ MVM_TEMPLATE_REGISTRY_ENDPOINT: `file://${registry}` });
  });
  after(() => {
    alice[Symbol.dispose]();
    bob[Symbol.dispose]();
    rmSync(registry, { recursive: true });
  });

  for (const [what, name, change] of [
    ["name", "other", (document: string) => document.replace('"template": "web"', '"template": "other"')],
    ["architecture", "web", (document: string) => document.replace('"x86_64"', '"aarch64"')],
  ] as const) {
    test(`a signed revision that is relabelled with another ${what}, with all that follows from it, is refused`, async () => {
      const revisions = (template: string) => join(registry, "v1", "templates", template, "revisions");
      const record = JSON.parse(readFileSync(join(revisions("web"), `${made.id}.json`), "utf8"));
      const document = change(record.document);
      const { template, architecture } = JSON.parse(document);
      const id = sha256(document);
      assert.notEqual(id, made.id);
      mkdirSync(revisions(name), { recursive: true });
      const relabelled = { ...record, template, architecture, revision: id, document };
      writeFileSync(join(revisions(name), `${id}.json`), JSON.stringify(relabelled));
      // Nothing but the signature is wrong: without trusted keys it is taken.
      const pull = ["template", "pull", `${name}@${id}`];
      await bob.ok(pull);
      await bob.ok(["template", "delete", name, "--yes"]);
      const config = { version: 1, registry: { trustedKeys: [publicKey] } };
      writeFileSync(join(bob.dataDir, "config.json"), JSON.stringify(config));
      assert.match(await bob.fails(pull, "UNTRUSTED"), /its signature is over something else/);
      assert.deepEqual(await bob.json(["template", "list"]), []);
      await bob.ok(["template", "pull", `web@${made.id}`]);
    });
  }

  test("a device where a file is about to be written is not written to", async (t) => {
    const partial = join(bob.dataDir, "cache", "pulls", `web-${made.id}`);
    mkdirSync(partial, { recursive: true });
    const { exitCode, stderr } = await run("mknod", [join(partial, "rootfs.erofs"), "c", "1", "3"]);
    if (exitCode !== 0) return t.skip(`a device can't be made: ${stderr.trim()}`);
    await bob.ok(["template", "pull", "web"]);
    await bob.ok(["template", "verify", "web"]);
  });

  test("no space left at the moment the manifest is written: it is said, nothing is published, and the next pull goes on", async () => {
    const ctx = createContext({ env: bob.env });
    const store = await openStore(ctx);
    const web = parseTemplateName("web");
    const isManifest = (name: string, first: unknown) => name === "openSync" && /-manifest\.json$/.test(String(first));
    await failFileCalls(isManifest, "ENOSPC", async () => {
      await assert.rejects(pullTemplate(ctx, store, pullRequest("web")), (error) => {
        assert.ok(error instanceof MvmError && error.code === "DISK_FULL", String(error));
        assert.match(error.message, /manifest\.json: no space left/);
        return true;
      });
    });
    assert.equal(existsSync(ctx.paths.template(web)), false);
    assert.deepEqual(leftovers(bob.dataDir), []);
    const { totals } = await pullTemplate(ctx, store, pullRequest("web"));
    assert.equal(totals.transferred, 0, "what was fetched is not fetched again");
    await requireSound(bob);
  });
});

test("a frame that lies about its content's size takes no memory for it", async () => {
  // RFC 8878, 3.1.1: magic number; a single segment with an 8-byte content size; a raw block, the last one, of 5 bytes.
  const block = [(5 << 3) | 1, 0, 0, ...Buffer.from("hello")];
  const frame = (size: bigint) => {
    const head = Buffer.alloc(13);
    head.writeUInt32LE(0xfd2fb528, 0);
    head.writeUInt8(0b1110_0000, 4);
    head.writeBigUInt64LE(size, 5);
    return Buffer.concat([head, Buffer.from(block)]);
  };
  assert.equal((await fromFrame(frame(5n), 5, sha256("hello"))).toString(), "hello");
  const rss = process.memoryUsage.rss();
  for (const lie of [4n, 6n, BigInt(CHUNK_BYTES), 1n << 31n, 1n << 40n, (1n << 64n) - 3n]) {
    await assert.rejects(fromFrame(frame(lie), 5, sha256("hello")), { code: "CHUNK_DAMAGED" });
    await assert.rejects(fromFrame(frame(lie), CHUNK_BYTES, sha256("hello")), { code: "CHUNK_DAMAGED" });
  }
  assert.ok(process.memoryUsage.rss() - rss < 64 * 1024 * 1024);
});

test("a chunk that arrives damaged is fetched once more, alone, and not a third time", async () => {
  await using server = await startS3rver();
  await using proxy = await startFaultProxy(server.options.endpoint);
  using mvm = useMvmctl(server.env(proxy.endpoint.href));
  makeTemplate(resolvePaths(mvm.env), "web");
  await mvm.ok(["template", "push", "web"]);
  await mvm.ok(["template", "delete", "web", "--yes"]);

  const blobs = { method: "GET", path: /blobs/ };
  const rangesSince = (seen: number) =>
    proxy.requests.slice(seen).flatMap(({ method, path, headers }) => {
      return method === "GET" && blobs.path.test(path) ? [String(headers["range"])] : [];
    });
  proxy.on({ ...blobs, times: Infinity }, { kind: "flip", offset: 100_000 });
  let seen = proxy.requests.length;
  const said = await mvm.fails(["template", "pull", "web"], "CHUNK_DAMAGED");
  const [, length, from] = /blobs\/[0-9a-f]{64}, (\d+) bytes from (\d+)/.exec(said) ?? [];
  const again = `bytes=${from}-${Number(from) + Number(length) - 1}`;
  assert.deepEqual(
    rangesSince(seen).filter((range) => range === again),
    [again],
    said,
  );
  assert.deepEqual(await mvm.json(["template", "list"]), []);

  proxy.clear();
  proxy.on(blobs, { kind: "flip", offset: 100_000 });
  seen = proxy.requests.length;
  await mvm.ok(["template", "pull", "web"]);
  const ranges = rangesSince(seen);
  assert.equal(new Set(ranges).size, ranges.length, "no range is asked for twice");
  await mvm.ok(["template", "verify", "web"]);
});

test("who waits for a server waits a random part of a time that doubles, up to a cap", async (t) => {
  const waits: number[] = [];
  t.mock.method(timers, "setTimeout", async (ms: number) => void waits.push(ms));
  syncBuiltinESMExports();
  try {
    for (const part of [0.25, 0.5]) {
      t.mock.method(Math, "random", () => part);
      waits.length = 0;
      const broken = Object.assign(new Error("broken off"), { code: "ECONNRESET" });
      const failing = withRetries({ ...DEFAULT_RETRIES, attempts: 9 }, new AbortController().signal, () =>
        Promise.reject(broken),
      );
      await assert.rejects(failing, broken);
      assert.deepEqual(
        waits,
        [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000].map((bound) => part * bound),
      );
    }
  } finally {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  }
});
