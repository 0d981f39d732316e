import assert from "node:assert/strict";
import { readdirSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { useWorld, web, wrap } from "../../test/support/registry-world.ts";
import type { TemplateName } from "../core/names.ts";
import { deleteRemote, listRemoteTemplates } from "./catalogue.ts";
import { collectGarbage } from "./collect.ts";
import { probeKey } from "./conditions.ts";
import { pullTemplate } from "./pull.ts";
import { pushTemplate } from "./push.ts";
import { renderRecord } from "./records.ts";
import { verifyRemote } from "./verify-remote.ts";

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

const HOURS = 3_600_000;

/** Sets the time of what is under a prefix of the registry, as if it had been written so long ago. */
function age(root: string, prefix: string, ms: number): void {
  const directory = join(root, prefix);
  const time = new Date(Date.now() - ms);
  for (const file of readdirSync(directory)) utimesSync(join(directory, file), time, time);
}

test("a push that slept until a collection took it for dead publishes nothing, and the next one does", async (t) => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  makeTemplate(alice.paths, "web");
  const asleep = wrap(store, {
    put: async (key, body, options, signal) => {
      const answer = await store.put(key, body, options, signal);
      if (key.startsWith("v1/blobs/")) {
        age(root, "v1/pushes", 2 * HOURS);
        await collectGarbage(bob.ctx, store, { dryRun: false, graceMs: 0 });
        t.mock.timers.setTime(Date.now() + 2 * HOURS);
      }
      return answer;
    },
  });
  await assert.rejects(pushTemplate(alice.ctx, asleep, pushRequest("web")), {
    code: "PUSH_LAPSED",
    hint: /^push again/,
  });
  assert.deepEqual(await listRemoteTemplates(alice.ctx, store), []);
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  assert.deepEqual((await verifyRemote(alice.ctx, store, web)).damage, []);
});

test("a push that slept, with everything still there, is published", async (t) => {
  using world = useWorld();
  const { alice, store } = world;
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  makeTemplate(alice.paths, "web");
  const asleep = wrap(store, {
    put: async (key, body, options, signal) => {
      if (key.startsWith("v1/blobs/")) t.mock.timers.setTime(Date.now() + 2 * HOURS);
      return await store.put(key, body, options, signal);
    },
  });
  await pushTemplate(alice.ctx, asleep, pushRequest("web"));
  assert.deepEqual((await verifyRemote(alice.ctx, store, web)).damage, []);
});

test("a collection that slept deletes nothing that was pushed again meanwhile", async (t) => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  await deleteRemote(alice.ctx, store, web);
  let marks = 0;
  const asleep = wrap(store, {
    list: async function* (prefix, signal) {
      yield* await Array.fromAsync(store.list(prefix, signal));
      if (prefix !== "v1/templates/" || ++marks !== 2) return;
      age(root, "v1/collections", 2 * HOURS);
      await collectGarbage(bob.ctx, store, { dryRun: false, graceMs: 0 });
      await pushTemplate(alice.ctx, store, pushRequest("web"));
      t.mock.timers.setTime(Date.now() + 2 * HOURS);
    },
  });
  await assert.rejects(collectGarbage(alice.ctx, asleep, { dryRun: false, graceMs: 0 }), {
    code: "COLLECTION_LAPSED",
  });
  assert.deepEqual((await verifyRemote(alice.ctx, store, web)).damage, []);
});

test("a push that wakes up while a collection looks around is not taken for dead", async () => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  makeTemplate(alice.paths, "web");
  const cutOff = wrap(store, {
    put: (key, body, options, signal) =>
      key.includes("/revisions/") ? Promise.reject(new Error("cut off")) : store.put(key, body, options, signal),
  });
  await assert.rejects(pushTemplate(alice.ctx, cutOff, pushRequest("web")), /cut off/);
  age(root, "v1/pushes", 2 * HOURS);
  let notes = 0;
  const waking = wrap(store, {
    put: (key, body, options, signal) => {
      if (key.startsWith("v1/collections/") && ++notes === 2) age(root, "v1/pushes", 0);
      return store.put(key, body, options, signal);
    },
  });
  const { removed } = await collectGarbage(bob.ctx, waking, { dryRun: false, graceMs: 0 });
  assert.equal(notes, 2);
  assert.deepEqual(removed, []);
  assert.equal(readdirSync(join(root, "v1/pushes")).length, 1);
  assert.ok((await collectGarbage(bob.ctx, store, { dryRun: true, graceMs: 0 })).removed.length === 0);
  age(root, "v1/pushes", 2 * HOURS);
  assert.ok((await collectGarbage(bob.ctx, store, { dryRun: false, graceMs: 0 })).bytes > 0);
  assert.deepEqual(readdirSync(join(root, "v1/pushes")), []);
});

test("what collections and probes that were killed left is removed when it is old", async () => {
  using world = useWorld();
  const { alice, bob, store, root } = world;
  makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  const left = { version: 1, kind: "collection", blobs: readdirSync(join(root, "v1/blobs")) };
  await store.put("v1/collections/left.json", renderRecord(left), {}, alice.ctx.signal);
  await store.put(probeKey(), Buffer.from("left"), {}, alice.ctx.signal);
  const there = () => ["v1/collections", "v1/probes"].map((prefix) => readdirSync(join(root, prefix)).length);
  await collectGarbage(bob.ctx, store, { dryRun: false, graceMs: 0 });
  assert.deepEqual(there(), [1, 1], "young: they may be needed");
  for (const prefix of ["v1/collections", "v1/probes"]) age(root, prefix, 2 * HOURS);
  await collectGarbage(bob.ctx, store, { dryRun: false, graceMs: 0 });
  assert.deepEqual(there(), [0, 0]);
});
