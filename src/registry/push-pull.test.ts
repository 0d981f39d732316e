import assert from "node:assert/strict";
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { alterRecord, useWorld, web, wrap } from "../../test/support/registry-world.ts";
import { until } from "../../test/support/wait.ts";
import { CHUNK_BYTES, indexFile } from "../core/chunks.ts";
import { allocatedBytes } from "../core/disk-usage.ts";
import { MvmError } from "../core/errors.ts";
import { run } from "../core/process.ts";
import { writeChunkIndex } from "../template/chunk-index.ts";
import { readSnapshots } from "../template/snapshots.ts";
import { templateInfo } from "../template/store.ts";
import { listRemoteTemplates } from "./catalogue.ts";
import { pullTemplate } from "./pull.ts";
import { pushTemplate } from "./push.ts";
import { renderRecord } from "./records.ts";
import type { Store } from "./store.ts";
import { verifyTemplate } from "./verify.ts";
import { verifyRemote } from "./verify-remote.ts";

test("what is pulled is what was pushed, byte for byte, with its holes", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  const made = makeTemplate(alice.paths, "web");
  const pushed = await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.equal(pushed.revision, made.id);
  const pulled = await pullTemplate(bob.ctx, store, pullRequest("web"));
  assert.equal(pulled.revision, made.id);
  assert.equal(pulled.upToDate, false);
  const there = bob.paths.revision(web, made.id);
  const snapshot = join("snapshots", readdirSync(join(there, "snapshots"))[0]!);
  for (const file of ["vmlinux", "rootfs.erofs", "manifest.json"])
    assert.ok(readFileSync(join(there, file)).equals(readFileSync(join(made.directory, file))), file);
  for (const file of ["vmstate.bin", "mem.bin", "snapshot.json"])
    assert.ok(readFileSync(join(there, snapshot, file)).equals(readFileSync(join(made.snapshot, file))), file);
  assert.ok(allocatedBytes(statSync(join(there, snapshot, "mem.bin"))) <= 7 * CHUNK_BYTES + 8192);
  assert.equal(statSync(join(there, snapshot, "mem.bin")).mode & 0o777, 0o444);
  const info = templateInfo(bob.paths, web);
  assert.equal(info.current, made.id);
  assert.equal(info.spec.flake, "github:somebody/something");
  assert.equal((await verifyTemplate(bob.ctx, web)).damage.length, 0);
  assert.equal((await pullTemplate(bob.ctx, store, pullRequest("web"))).upToDate, true);
  assert.deepEqual(readdirSync(join(bob.paths.cache, "pulls")), []);
});

test("a second revision moves only its new chunks, to the registry and from it", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web");
  const first = await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.equal(first.totals.new + first.totals.reused + first.totals.zero, first.totals.logical);
  await pullTemplate(bob.ctx, store, pullRequest("web"));
  makeTemplate(alice.paths, "web", { change: "1", builtAt: "2026-01-03T00:00:00.000Z" });
  const expected = 2 * CHUNK_BYTES + 5000; // a chunk of the root image, one of the memory, the state
  const second = await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.equal(second.totals.new, expected);
  const pulled = await pullTemplate(bob.ctx, store, pullRequest("web"));
  assert.equal(pulled.totals.new, expected);
  assert.equal(pulled.revision, second.revision);
  assert.equal((await verifyTemplate(bob.ctx, web)).damage.length, 0);
});

test("what the memory shares with the root image is sent once, and fetched once", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web", { hasRead: true });
  const pushed = await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.equal(pushed.totals.reused, CHUNK_BYTES);
  const pulled = await pullTemplate(bob.ctx, store, pullRequest("web"));
  assert.deepEqual(pulled.totals, pushed.totals);
  assert.equal((await verifyTemplate(bob.ctx, web)).damage.length, 0);
});

test("another template with the same kernel sends none of it again", async () => {
  using world = useWorld();
  const { alice, store } = world;
  makeTemplate(alice.paths, "web");
  makeTemplate(alice.paths, "worker");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.equal((await pushTemplate(alice.ctx, store, pushRequest("worker"))).totals.new, 0);
});

test("a template whose record has chunks in wrong places does not spoil another that shares them", async () => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  const { id } = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  const { files, blobs } = JSON.parse(readFileSync(join(root, `v1/templates/web/revisions/${id}.json`), "utf8"));
  files[0].chunks[1][2] -= 1000;
  alterRecord(world, id, { files });
  const [shared] = files[1].chunks;
  const push = { version: 1, kind: "push", template: "web", blobs, chunks: [[shared[0], 0, shared[2], 0]] };
  await store.put("v1/pushes/bad.json", renderRecord(push), {}, alice.ctx.signal);
  makeTemplate(alice.paths, "worker");
  const { totals } = await pushTemplate(alice.ctx, store, pushRequest("worker"));
  assert.equal(totals.new, 2 * CHUNK_BYTES, "the two that overlap");
  await pullTemplate(bob.ctx, store, pullRequest("worker"));
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  await pullTemplate(bob.ctx, store, pullRequest("web"));
});

test("what a killed push was about to send, and did not, is not taken for the place of what is there", async () => {
  using world = useWorld();
  const { alice, store, root } = world;
  const { id } = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  const { files } = JSON.parse(readFileSync(join(root, `v1/templates/web/revisions/${id}.json`), "utf8"));
  const chunks = files.flatMap((file: { chunks: unknown[] }) => file.chunks.filter((chunk) => Array.isArray(chunk)));
  const blobs = ["a".repeat(64)];
  const places = chunks.map(([sha256]: string[], at: number) => [sha256, 0, at, 1]);
  const bytes = renderRecord({ version: 1, kind: "push", template: "web", blobs, chunks: places });
  const left = { key: "v1/pushes/left.json", size: bytes.length, modifiedMs: Date.now() };
  // From memory, and so before any record from the disk: what is read first does not come first.
  const calls: Partial<Store> = {
    list: (prefix, signal) => (prefix === "v1/pushes/" ? ReadableStream.from([left]) : store.list(prefix, signal)),
    get: async (key, maxBytes, signal) =>
      key === left.key ? { bytes, etag: "left" } : await store.get(key, maxBytes, signal),
  };
  assert.equal((await pushTemplate(alice.ctx, wrap(store, calls), pushRequest("web"))).totals.new, 0);
});

test("--no-snapshot leaves snapshots where they are, and a later push or pull brings them", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web");
  assert.deepEqual((await pushTemplate(alice.ctx, store, pushRequest("web", { snapshots: false }))).snapshots, []);
  assert.deepEqual((await pullTemplate(bob.ctx, store, pullRequest("web"))).snapshots, []);
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  const again = await pullTemplate(bob.ctx, store, pullRequest("web"));
  assert.equal(again.snapshots.length, 1);
  assert.equal((await verifyTemplate(bob.ctx, web)).files, 4);
});

test("a pull that was broken off goes on where it stopped", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web");
  const whole = await pushTemplate(alice.ctx, store, pushRequest("web"));
  const stopping = new AbortController();
  let begun = false;
  const interrupted: Store = wrap(store, {
    getRange: async (key, offset, length, signal) => {
      if (!begun) {
        begun = true;
        return store.getRange(key, offset, length, signal);
      }
      await until("something of the first range is on the disk", () => bytesBelow(join(bob.paths.cache, "pulls")) > 0);
      stopping.abort(new Error("stopped"));
      throw stopping.signal.reason;
    },
  });
  await assert.rejects(
    pullTemplate({ ...bob.ctx, signal: stopping.signal }, interrupted, pullRequest("web")),
    /stopped/,
  );
  assert.throws(() => templateInfo(bob.paths, web), { code: "TEMPLATE_NOT_FOUND" });
  const rest = await pullTemplate(bob.ctx, store, pullRequest("web"));
  assert.ok(rest.totals.transferred < whole.totals.transferred, "what was there was not fetched again");
  assert.equal((await verifyTemplate(bob.ctx, web)).damage.length, 0);
});

test("a pull without snapshots publishes nothing of those that a broken-off pull had begun", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  const { id } = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  let ranges = 0;
  const failing = wrap(store, {
    getRange: (key, offset, length, signal) =>
      ++ranges > 1 ? Promise.reject(new Error("cut off")) : store.getRange(key, offset, length, signal),
  });
  await assert.rejects(pullTemplate(bob.ctx, failing, pullRequest("web")), /cut off/);
  const [partial] = readdirSync(join(bob.paths.cache, "pulls"));
  assert.ok(readdirSync(join(bob.paths.cache, "pulls", partial!)).includes("snapshots"), "a snapshot was begun");
  await pullTemplate(bob.ctx, store, pullRequest("web", { snapshots: false }));
  assert.deepEqual(readdirSync(bob.paths.snapshots(web, id)), []);
  assert.equal((await pullTemplate(bob.ctx, store, pullRequest("web"))).snapshots.length, 1);
  assert.equal((await verifyTemplate(bob.ctx, web)).damage.length, 0);
});

test("a pull that was killed when its files were sealed is completed by a user who is not root", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  const { id } = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  await pullTemplate(bob.ctx, store, pullRequest("web"));
  const partial = join(bob.paths.cache, "pulls", `web-${id}`);
  renameSync(bob.paths.revision(web, id), partial);
  rmSync(bob.paths.template(web), { recursive: true });
  // Sealed, but not what it should be: it is fetched, and nothing is written into it.
  chmodSync(join(partial, "vmlinux"), 0o644);
  writeFileSync(join(partial, "vmlinux"), "not the kernel");
  chmodSync(join(partial, "vmlinux"), 0o444);
  const pulled = await asNobody([alice.root, bob.root], () => pullTemplate(bob.ctx, store, pullRequest("web")));
  assert.equal(pulled.totals.new, 2.5 * CHUNK_BYTES);
  assert.equal((await verifyTemplate(bob.ctx, web)).damage.length, 0);
});

/** Does `work` as a user for whom permissions count, and who owns these directories. */
async function asNobody<T>(directories: readonly string[], work: () => Promise<T>): Promise<T> {
  if (process.getuid?.() !== 0) return await work();
  const nobody = 65534;
  for (const directory of directories) await run("chown", ["-R", `${nobody}:${nobody}`, directory]);
  process.seteuid?.(nobody);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

test("a record that is too large keeps nobody from pushing, and is mended by a push of its own", async () => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  const { id } = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  truncateSync(join(root, `v1/templates/web/revisions/${id}.json`), 17 * 1024 * 1024);
  mkdirSync(join(root, "v1/pushes"), { recursive: true });
  writeFileSync(join(root, "v1/pushes/00000000-0000-4000-8000-000000000000.json"), Buffer.alloc(17 * 1024 * 1024));
  makeTemplate(alice.paths, "other", { seed: "b" });
  await pushTemplate(alice.ctx, store, pushRequest("other"));
  assert.equal((await verifyRemote(alice.ctx, store, web)).damage[0]!.object, "its record");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.deepEqual((await verifyRemote(alice.ctx, store, web)).damage, []);
  assert.equal((await pullTemplate(bob.ctx, store, pullRequest("web"))).revision, id);
});

test("a push that was broken off leaves the tag, and the next one sends only what is missing", async () => {
  using world = useWorld();
  const { alice, store } = world;
  makeTemplate(alice.paths, "web");
  const failing = wrap(store, {
    put: (key, body, options, signal) =>
      key.includes("/revisions/") ? Promise.reject(new Error("cut off")) : store.put(key, body, options, signal),
  });
  await assert.rejects(pushTemplate(alice.ctx, failing, pushRequest("web")), /cut off/);
  assert.deepEqual(await listRemoteTemplates(alice.ctx, store), []);
  const again = await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.equal(again.totals.new, 0);
});

test("what is too large for a record is refused before anything is sent", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  const { snapshot } = makeTemplate(alice.paths, "web");
  const { size, sha256 } = readSnapshots(join(snapshot, ".."))[0]!.snapshot.files.memory;
  const state = await indexFile(join(snapshot, "vmstate.bin"));
  const chunks = Array.from({ length: 200_000 }, (_, index) => index.toString(16).padStart(64, "0"));
  writeChunkIndex(snapshot, { "vmstate.bin": state, "mem.bin": { size, sha256, chunks } });
  await assert.rejects(pushTemplate(alice.ctx, store, pushRequest("web")), {
    code: "RECORD_TOO_LARGE",
    message: /the snapshot/,
  });
  for await (const { key } of store.list("v1/", alice.ctx.signal)) assert.fail(`${key} was written`);
  await pushTemplate(alice.ctx, store, pushRequest("web", { snapshots: false }));
  assert.deepEqual((await pullTemplate(bob.ctx, store, pullRequest("web"))).snapshots, []);
});

test("a push that may not delete succeeds, and says what it left", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web");
  const denying = wrap(store, { delete: () => Promise.reject(new MvmError("REGISTRY_DENIED", "no deletion for you")) });
  const { revision } = await pushTemplate(alice.ctx, denying, pushRequest("web"));
  assert.match(alice.notes.join(), /everything is pushed.*v1\/pushes.*no deletion for you/);
  assert.equal((await pullTemplate(bob.ctx, store, pullRequest("web"))).revision, revision);
});

/** Bytes that the files below a directory take on the disk. */
function bytesBelow(directory: string): number {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.reduce((sum, { parentPath, name }) => sum + allocatedBytes(statSync(join(parentPath, name))), 0);
}
