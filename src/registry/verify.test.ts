import assert from "node:assert/strict";
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { alterRecord, flip, useWorld, web } from "../../test/support/registry-world.ts";
import { CHUNK_BYTES } from "../core/chunks.ts";
import type { MvmError } from "../core/errors.ts";
import { readSnapshots } from "../template/snapshots.ts";
import { pullTemplate } from "./pull.ts";
import { pushTemplate } from "./push.ts";
import { repairTemplate } from "./repair.ts";
import { verifyTemplate } from "./verify.ts";
import { verifyRemote } from "./verify-remote.ts";

test("a blob that was altered is mended the way the error says", async () => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  const [blob] = readdirSync(join(root, "v1", "blobs"));
  await flip(join(root, "v1", "blobs", blob!), 1000);
  const refusal = (await pullTemplate(bob.ctx, store, pullRequest("web")).catch((error) => error)) as MvmError;
  assert.equal(refusal.code, "CHUNK_DAMAGED");
  const [object] = /v1\/blobs\/[0-9a-f]{64}/.exec(refusal.hint ?? "")!;
  rmSync(join(root, object));
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.deepEqual((await verifyRemote(alice.ctx, store, web)).damage, []);
  assert.equal((await pullTemplate(bob.ctx, store, pullRequest("web"))).upToDate, false);
});

test("verify names the file and the chunk, and repair fetches just that", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  const { revision } = await pullTemplate(bob.ctx, store, pullRequest("web"));
  const directory = bob.paths.revision(web, revision);
  const memory = join(directory, "snapshots", readdirSync(join(directory, "snapshots"))[0]!, "mem.bin");
  await flip(memory, 4 * CHUNK_BYTES + 7); // content
  await flip(memory, 10 * CHUNK_BYTES + 7); // what should be zeros
  const { damage } = await verifyTemplate(bob.ctx, web);
  assert.deepEqual(
    damage.map(({ file, chunks }) => ({ file, chunks })),
    [{ file: "mem.bin", chunks: [4, 10] }],
  );
  const totals = await repairTemplate(bob.ctx, store, web, damage, []);
  assert.equal(totals.new, CHUNK_BYTES);
  assert.equal((await verifyTemplate(bob.ctx, web)).damage.length, 0);
  assert.equal(statSync(memory).mode & 0o777, 0o444);
});

test("a snapshot that was captured here is not mended with one that was captured elsewhere", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  const { revision } = await pullTemplate(bob.ctx, store, pullRequest("web"));
  const snapshots = bob.paths.snapshots(web, revision);
  const directory = join(snapshots, readdirSync(snapshots)[0]!);
  const document = join(directory, "snapshot.json");
  const [memory, theirs] = [join(directory, "mem.bin"), readSnapshots(snapshots)[0]!.snapshot.files.memory.sha256];
  writeFileSync(document, readFileSync(document, "utf8").replace(theirs, "0".repeat(64)));
  const { damage } = await verifyTemplate(bob.ctx, web);
  assert.deepEqual(
    damage.map(({ file }) => file),
    ["mem.bin"],
  );
  const before = statSync(memory).ino;
  await assert.rejects(repairTemplate(bob.ctx, store, web, damage, []), {
    code: "NOT_REPAIRABLE",
    message: /captured here/,
  });
  assert.equal(statSync(memory).ino, before);
});

test("verify --remote finds a blob that is missing, and one that was altered", async () => {
  using world = useWorld();
  const { alice, store, root } = world;
  makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.deepEqual((await verifyRemote(alice.ctx, store, web)).damage, []);
  const [blob] = readdirSync(join(root, "v1", "blobs"));
  await flip(join(root, "v1", "blobs", blob!), 1000);
  assert.match((await verifyRemote(alice.ctx, store, web)).damage[0]!.reason, /SHA-256/);
  await store.delete(`v1/blobs/${blob}`, alice.ctx.signal);
  assert.match((await verifyRemote(alice.ctx, store, web)).damage[0]!.reason, /missing/);
});

test("what a snapshot alone has lost is named as the snapshot's, and the template is pulled without it", async () => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web", { snapshots: false }));
  const before = new Set(readdirSync(join(root, "v1", "blobs")));
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  for (const blob of readdirSync(join(root, "v1", "blobs")))
    if (!before.has(blob)) await store.delete(`v1/blobs/${blob}`, alice.ctx.signal);
  const { damage } = await verifyRemote(alice.ctx, store, web);
  assert.match(damage[0]!.reason, /^it is missing, with chunks of (mem|vmstate)\.bin of the snapshot qemu-/);
  const pull = pullTemplate(bob.ctx, store, pullRequest("web"));
  await assert.rejects(pull, { code: "REGISTRY_OBJECT_MISSING", hint: /--no-snapshot/ });
  await pullTemplate(bob.ctx, store, pullRequest("web", { snapshots: false }));
});

test("verify --remote finds a chunk that is not where its record says, and the way it says mends that", async () => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  const { id } = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  const whole = await verifyRemote(alice.ctx, store, web);
  assert.deepEqual([whole.damage, whole.revisions, whole.tags, whole.chunks], [[], 1, 1, 19]);
  const record = `v1/templates/web/revisions/${id}.json`;
  const { files } = JSON.parse(readFileSync(join(root, record), "utf8"));
  files[1].chunks[4][2] -= 1000;
  alterRecord(world, id, { files });
  const { damage } = await verifyRemote(alice.ctx, store, web);
  assert.deepEqual(
    damage.map(({ object }) => object),
    [record],
  );
  assert.match(damage[0]!.reason, /chunk 5 of rootfs\.erofs .* delete this object/);
  rmSync(join(root, record));
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.deepEqual((await verifyRemote(alice.ctx, store, web)).damage, []);
  assert.equal((await pullTemplate(bob.ctx, store, pullRequest("web"))).revision, id);
});

test("verify --remote finds a tag that is damaged, and one whose revision is gone", async () => {
  using world = useWorld();
  const { alice, store, root } = world;
  const { id } = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  await pushTemplate(alice.ctx, store, pushRequest("web", { tag: "v1" }));
  const objects = async () => (await verifyRemote(alice.ctx, store, web)).damage.map(({ object }) => object);
  writeFileSync(join(root, "v1/templates/web/tags/v1.json"), "{}");
  assert.deepEqual(await objects(), ["v1/templates/web/tags/v1.json"]);
  rmSync(join(root, `v1/templates/web/revisions/${id}.json`));
  assert.deepEqual(await objects(), ["v1/templates/web/tags/latest.json", "v1/templates/web/tags/v1.json"]);
});
