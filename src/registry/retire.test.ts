import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { useWorld, web, wrap } from "../../test/support/registry-world.ts";
import { remoteTemplateInfo } from "./catalogue.ts";
import { collectGarbage } from "./collect.ts";
import { pullTemplate } from "./pull.ts";
import { pushTemplate } from "./push.ts";
import { verifyRemote } from "./verify-remote.ts";

const all = { dryRun: false, graceMs: 0, untagged: { keep: 0 } };

/** Pushes so many revisions as `latest`, one after another, and returns their ids. */
async function pushRevisions({ alice, store }: ReturnType<typeof useWorld>, count: number): Promise<string[]> {
  const ids = [];
  for (let number = 1; number <= count; number++) {
    const made = makeTemplate(alice.paths, "web", { change: `${number}`, builtAt: `2026-02-0${number}T00:00:00.000Z` });
    await pushTemplate(alice.ctx, store, pushRequest("web"));
    ids.push(made.id);
  }
  return ids;
}

test("revisions that no tag names are removed with what they alone used, but for the newest", async () => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  const [first, second, third, fourth] = await pushRevisions(world, 4);
  await pushTemplate(alice.ctx, store, pushRequest("web", { revision: first!, tag: "v1" }));
  const blobs = () => readdirSync(join(root, "v1/blobs")).length;
  const before = blobs();
  const keepOne = { graceMs: 0, untagged: { keep: 1 } };
  const dry = await collectGarbage(bob.ctx, store, { ...keepOne, dryRun: true });
  const young = await collectGarbage(bob.ctx, store, { ...keepOne, dryRun: false, graceMs: 3_600_000 });
  assert.deepEqual([young.revisions, blobs()], [[], before]);
  const done = await collectGarbage(bob.ctx, store, { ...keepOne, dryRun: false });
  assert.deepEqual(done.revisions, [{ template: "web", revision: second }]);
  assert.deepEqual({ ...dry, dryRun: false }, done);
  assert.ok(blobs() < before);
  const { revisions } = await remoteTemplateInfo(bob.ctx, store, web);
  assert.deepEqual(
    revisions.map(({ id }) => id),
    [fourth, third, first],
  );
  assert.deepEqual((await verifyRemote(bob.ctx, store, web)).damage, []);
  await pullTemplate(bob.ctx, store, pullRequest("web", { what: { tag: "v1" } }));
});

test("a revision that a push gives a tag while it is removed is put back", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  const [first, second] = await pushRevisions(world, 2);
  let pushed = false;
  const slow = wrap(store, {
    delete: async (key, signal) => {
      if (key.endsWith(`${first}.json`) && !pushed) {
        pushed = true;
        await pushTemplate(alice.ctx, store, pushRequest("web", { revision: first!, tag: "v1" }));
      }
      await store.delete(key, signal);
    },
  });
  assert.deepEqual((await collectGarbage(bob.ctx, slow, all)).revisions, []);
  assert.ok(pushed);
  const { revisions } = await remoteTemplateInfo(bob.ctx, store, web);
  assert.deepEqual(
    revisions.map(({ id, snapshots }) => [id, snapshots.length]),
    [
      [second, 1],
      [first, 1],
    ],
  );
  assert.deepEqual((await verifyRemote(bob.ctx, store, web)).damage, []);
});

test("a template that is being pushed keeps its revisions", async () => {
  using world = useWorld();
  const { alice, bob, store } = world;
  const [first] = await pushRevisions(world, 2);
  let during: Awaited<ReturnType<typeof collectGarbage>> | undefined;
  const beside = wrap(store, {
    put: async (key, body, options, signal) => {
      if (key.includes("/tags/")) during = await collectGarbage(bob.ctx, store, all);
      return await store.put(key, body, options, signal);
    },
  });
  await pushTemplate(alice.ctx, beside, pushRequest("web", { revision: first!, tag: "v1" }));
  assert.deepEqual(during?.revisions, []);
  assert.deepEqual((await verifyRemote(bob.ctx, store, web)).damage, []);
});
