import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type DataDirectory, useDataDirectory } from "../../test/support/data-directory.ts";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { CHUNK_BYTES } from "../core/chunks.ts";
import { allocatedBytes } from "../core/disk-usage.ts";
import { writeDocument } from "../core/documents.ts";
import type { MvmError } from "../core/errors.ts";
import type { TemplateName } from "../core/names.ts";
import { BuildRecordDocument } from "../template/revision.ts";
import { readRevision } from "../template/revisions.ts";
import { readSnapshots } from "../template/snapshots.ts";
import { loadSpec, templateInfo } from "../template/store.ts";
import { deleteRemote, listRemoteTemplates, remoteTemplateInfo } from "./catalogue.ts";
import { collectGarbage } from "./collect.ts";
import { pullTemplate } from "./pull.ts";
import { pushTemplate } from "./push.ts";
import { repairTemplate } from "./repair.ts";
import { generateKey, readSigningKey, type SigningKey } from "./signatures.ts";
import type { Store } from "./store.ts";
import { DirectoryStore } from "./stores/directory.ts";
import { verifyTemplate } from "./verify.ts";
import { verifyRemote } from "./verify-remote.ts";

/** Two machines and a registry between them. */
interface World extends Disposable {
  readonly alice: DataDirectory;
  readonly bob: DataDirectory;
  readonly store: DirectoryStore;
  readonly root: string;
}

function useWorld(): World {
  const [alice, bob] = [useDataDirectory(), useDataDirectory()];
  const root = join(alice.root, "registry");
  mkdirSync(root);
  return {
    alice,
    bob,
    root,
    store: new DirectoryStore(root),
    [Symbol.dispose]: () => {
      alice[Symbol.dispose]();
      bob[Symbol.dispose]();
    },
  };
}

const web = "web" as TemplateName;

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

test("another template with the same kernel sends none of it again", async () => {
  using world = useWorld();
  const { alice, store } = world;
  makeTemplate(alice.paths, "web");
  makeTemplate(alice.paths, "worker");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.equal((await pushTemplate(alice.ctx, store, pushRequest("worker"))).totals.new, 0);
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
  let ranges = 0;
  const interrupted: Store = wrap(store, {
    getRange: (key, offset, length) => {
      if (++ranges > 1) stopping.abort(new Error("stopped"));
      stopping.signal.throwIfAborted();
      return store.getRange(key, offset, length, stopping.signal);
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

test("who trusts certain keys refuses a record whose flake was altered after it was signed", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  const { id } = makeTemplate(alice.paths, "web");
  const key = makeKey(alice);
  const trusting = pullRequest("web", { trustedKeys: [key.publicKey] });
  await pushTemplate(alice.ctx, store, pushRequest("web", { signingKey: key }));
  alterRecord(world, id, { flake: "github:evil/rootkit" });
  await assert.rejects(pullTemplate(bob.ctx, store, trusting), { code: "UNTRUSTED" });
  alterRecord(world, id, { flake: undefined });
  await assert.rejects(pullTemplate(bob.ctx, store, trusting), { code: "UNTRUSTED" });
  // Pushing it again puts the flake right, whoever altered it.
  alterRecord(world, id, { flake: "github:evil/rootkit" });
  await pushTemplate(alice.ctx, store, pushRequest("web", { signingKey: key }));
  alterRecord(world, id, { builtAt: "2036-01-01T00:00:00.000Z" });
  await pullTemplate(bob.ctx, store, trusting);
  assert.equal(loadSpec(bob.paths, web).flake, "github:somebody/something");
  assert.equal(
    readRevision(bob.paths, web, id).build?.builtAt,
    "2026-01-02T03:04:05.000Z",
    "the tag's, which is signed",
  );
});

test("a push of the same revision from another flake keeps the first one's signature, and does not sign its flake", async () => {
  using world = useWorld();
  using carol = useDataDirectory();
  const { alice, bob, store } = world;
  const [first, second] = [makeKey(alice), makeKey(bob)];
  makeTemplate(alice.paths, "web");
  const { id, directory } = makeTemplate(bob.paths, "web");
  const elsewhere = { builtAt: "2026-01-05T00:00:00.000Z", flake: "github:another/one" };
  writeDocument(BuildRecordDocument, join(directory, "build.json"), elsewhere);
  await pushTemplate(alice.ctx, store, pushRequest("web", { signingKey: first }));
  await pushTemplate(bob.ctx, store, pushRequest("web", { signingKey: second }));
  const what = { revision: id };
  const spec = async (key: SigningKey) => {
    using puller = useDataDirectory();
    await pullTemplate(puller.ctx, store, pullRequest("web", { what, trustedKeys: [key.publicKey] }));
    return loadSpec(puller.paths, web).flake;
  };
  assert.equal(await spec(first), "github:somebody/something");
  assert.equal(await spec(second), "registry:web");
  // What stands for a flake that is not known here is not pushed as one, nor does it take the place of the signed one.
  await pullTemplate(carol.ctx, store, pullRequest("web", { trustedKeys: [second.publicKey] }));
  await pushTemplate(carol.ctx, store, pushRequest("web", { signingKey: makeKey(carol) }));
  assert.equal(await spec(first), "github:somebody/something");
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

test("a collection removes what no record names, when it is old enough, and nothing that a push relies on", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  makeTemplate(alice.paths, "other", { seed: "b" });
  await pushTemplate(alice.ctx, store, pushRequest("other"));
  await deleteRemote(alice.ctx, store, "other" as TemplateName);
  assert.equal((await collectGarbage(alice.ctx, store, { dryRun: false, graceMs: 3_600_000 })).removed.length, 0);
  const dry = await collectGarbage(alice.ctx, store, { dryRun: true, graceMs: 0 });
  assert.ok(dry.removed.length > 0);
  // A push that begins between the marks of a collection: what it relies on stays.
  let pushing: Promise<unknown> | undefined;
  const beside = wrap(store, {
    list: (prefix, signal) => {
      if (prefix === "v1/blobs/") pushing = pushTemplate(alice.ctx, store, pushRequest("other"));
      return store.list(prefix, signal);
    },
  });
  await collectGarbage(bob.ctx, beside, { dryRun: false, graceMs: 0 });
  await pushing;
  assert.deepEqual((await verifyRemote(alice.ctx, store, "other" as TemplateName)).damage, []);
  await deleteRemote(alice.ctx, store, "other" as TemplateName);
  const swept = await collectGarbage(alice.ctx, store, { dryRun: false, graceMs: 0 });
  assert.ok(swept.removed.length > 0 && swept.bytes > 0);
  assert.deepEqual((await verifyRemote(alice.ctx, store, web)).damage, []);
  assert.equal((await pullTemplate(bob.ctx, store, pullRequest("web"))).upToDate, false);
});

test("the registry's list and info say what is there", async () => {
  using world = useWorld();
  const { alice, store } = world;
  const first = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web", { tag: "v1" }));
  const second = makeTemplate(alice.paths, "web", { change: "1", builtAt: "2026-02-02T03:04:05.000Z" });
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.deepEqual(
    (await listRemoteTemplates(alice.ctx, store)).map(({ changedAt: _, ...rest }) => rest),
    [{ name: "web", tags: ["latest", "v1"], revisions: 2, snapshots: 2 }],
  );
  const info = await remoteTemplateInfo(alice.ctx, store, web);
  assert.deepEqual(
    info.revisions.map(({ id, tags }) => ({ id, tags })),
    [
      { id: second.id, tags: ["latest"] },
      { id: first.id, tags: ["v1"] },
    ],
  );
  await assert.rejects(deleteRemote(alice.ctx, store, web, { revision: first.id }), { code: "REVISION_TAGGED" });
  await deleteRemote(alice.ctx, store, web, { tag: "v1" });
  await deleteRemote(alice.ctx, store, web, { revision: first.id });
  assert.equal((await remoteTemplateInfo(alice.ctx, store, web)).revisions.length, 1);
  await assert.rejects(pullTemplate(alice.ctx, store, pullRequest("wbe")), { code: "REGISTRY_TEMPLATE_NOT_FOUND" });
  await assert.rejects(pullTemplate(alice.ctx, store, pullRequest("web", { what: { tag: "v1" } })), {
    code: "REGISTRY_TAG_NOT_FOUND",
  });
});

function makeKey({ root }: DataDirectory): SigningKey {
  const path = join(root, "key.pem");
  generateKey(path);
  return readSigningKey(path);
}

/** As somebody who can write to the registry and has no key. */
function alterRecord({ root }: World, id: string, change: { flake?: string | undefined; builtAt?: string }): void {
  const path = join(root, `v1/templates/web/revisions/${id}.json`);
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...change }));
}

/** A store with some of its calls replaced. */
function wrap(store: Store, calls: Partial<Store>): Store {
  return new Proxy(store, {
    get: (target, name) => {
      const replaced = calls[name as keyof Store];
      const value = replaced ?? Reflect.get(target, name);
      return typeof value === "function" && !replaced ? value.bind(target) : value;
    },
  });
}

async function flip(path: string, offset: number): Promise<void> {
  const { chmod, open } = await import("node:fs/promises");
  await chmod(path, 0o644);
  await using file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  byte[0]! ^= 1;
  await file.write(byte, 0, 1, offset);
}
