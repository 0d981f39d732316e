import assert from "node:assert/strict";
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { flip, useWorld, web } from "../../test/support/registry-world.ts";
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
