import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { QEMU_HERE, useDataDirectory } from "../../test/support/data-directory.ts";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { alterRecord, makeKey, useWorld, web } from "../../test/support/registry-world.ts";
import { writeDocument } from "../core/documents.ts";
import { BuildRecordDocument } from "../template/revision.ts";
import { readRevision } from "../template/revisions.ts";
import { loadSpec } from "../template/store.ts";
import { pullTemplate } from "./pull.ts";
import { pushTemplate } from "./push.ts";
import type { SigningKey } from "./signatures.ts";

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

test("a push without a key does not take a tag's signature away, unless that is said", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  makeTemplate(alice.paths, "web");
  const key = makeKey(alice);
  const trusting = pullRequest("web", { trustedKeys: [key.publicKey] });
  await pushTemplate(alice.ctx, store, pushRequest("web", { signingKey: key }));
  const { id } = makeTemplate(alice.paths, "web", { change: "1", builtAt: "2026-01-03T00:00:00.000Z" });
  await assert.rejects(pushTemplate(alice.ctx, store, pushRequest("web")), { code: "TAG_SIGNED", hint: /--unsigned/ });
  await pullTemplate(bob.ctx, store, trusting);
  await pushTemplate(alice.ctx, store, pushRequest("web", { allowUnsigned: true }));
  await assert.rejects(pullTemplate(bob.ctx, store, trusting), { code: "UNTRUSTED" });
  await pushTemplate(alice.ctx, store, pushRequest("web", { signingKey: key }));
  // What is there is said again: the tag stays as it is, with its signature.
  await pushTemplate(alice.ctx, store, pushRequest("web", { allowUnsigned: true }));
  assert.equal((await pullTemplate(bob.ctx, store, trusting)).revision, id);
});

test("a push without a key adds no snapshot to a signed revision, unless that is said", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  using carol = useDataDirectory();
  makeTemplate(alice.paths, "web");
  const key = makeKey(alice);
  const trusting = pullRequest("web", { trustedKeys: [key.publicKey] });
  await pushTemplate(alice.ctx, store, pushRequest("web", { signingKey: key }));
  const dev = pushRequest("web", { tag: "dev" });
  await pushTemplate(alice.ctx, store, dev);
  makeTemplate(bob.paths, "web", { hypervisor: { ...QEMU_HERE, version: "9.0.0" } });
  await assert.rejects(pushTemplate(bob.ctx, store, dev), { code: "REVISION_SIGNED", hint: /--no-snapshot/ });
  await pushTemplate(bob.ctx, store, { ...dev, snapshots: false });
  await pullTemplate(carol.ctx, store, trusting);
  await pushTemplate(bob.ctx, store, { ...dev, allowUnsigned: true });
  await assert.rejects(pullTemplate(carol.ctx, store, trusting), { code: "UNTRUSTED", hint: /--no-snapshot/ });
});

test("who trusts certain keys believes a revision's time only where one of them signed it", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  const { id } = makeTemplate(alice.paths, "web");
  const [key, another] = [makeKey(alice), makeKey(bob)];
  const pulledTime = async (by: SigningKey) => {
    using puller = useDataDirectory();
    await pullTemplate(puller.ctx, store, pullRequest("web", { what: { revision: id }, trustedKeys: [by.publicKey] }));
    return readRevision(puller.paths, web, id).build?.builtAt;
  };
  const [built, unknown] = ["2026-01-02T03:04:05.000Z", "1970-01-01T00:00:00.000Z"];
  await pushTemplate(alice.ctx, store, pushRequest("web", { signingKey: key }));
  assert.equal(await pulledTime(key), built);
  // Another builder's time does not take the place of one that is signed, and is not what that builder signs.
  const { directory } = makeTemplate(bob.paths, "web");
  const elsewhere = { builtAt: "2026-01-05T00:00:00.000Z", flake: "github:another/one" };
  writeDocument(BuildRecordDocument, join(directory, "build.json"), elsewhere);
  await pushTemplate(bob.ctx, store, pushRequest("web", { signingKey: another }));
  assert.deepEqual([await pulledTime(key), await pulledTime(another)], [built, unknown]);
  alterRecord(world, id, { builtAt: "2036-01-01T00:00:00.000Z" });
  assert.deepEqual([await pulledTime(key), await pulledTime(another)], [unknown, unknown]);
  // Pushing it again puts the time right, whoever altered it.
  await pushTemplate(alice.ctx, store, pushRequest("web", { signingKey: key }));
  assert.deepEqual([await pulledTime(key), await pulledTime(another)], [built, unknown]);
});
