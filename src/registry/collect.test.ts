import assert from "node:assert/strict";
import { test } from "node:test";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { useWorld, web, wrap } from "../../test/support/registry-world.ts";
import type { TemplateName } from "../core/names.ts";
import { deleteRemote } from "./catalogue.ts";
import { collectGarbage } from "./collect.ts";
import { pullTemplate } from "./pull.ts";
import { pushTemplate } from "./push.ts";
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
