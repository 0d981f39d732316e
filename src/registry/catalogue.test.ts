import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { makeKey, useWorld, web } from "../../test/support/registry-world.ts";
import { deleteRemote, listRemoteTemplates, remoteTemplateInfo } from "./catalogue.ts";
import { revisionKey } from "./keys.ts";
import { pullTemplate } from "./pull.ts";
import { pushTemplate } from "./push.ts";

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
  for (const revision of ["", first.id.slice(0, 3), "latest"])
    await assert.rejects(deleteRemote(alice.ctx, store, web, { revision }), { code: "INVALID_REVISION" }, revision);
  await deleteRemote(alice.ctx, store, web, { revision: first.id });
  assert.equal((await remoteTemplateInfo(alice.ctx, store, web)).revisions.length, 1);
  await assert.rejects(pullTemplate(alice.ctx, store, pullRequest("wbe")), { code: "REGISTRY_TEMPLATE_NOT_FOUND" });
  await assert.rejects(pullTemplate(alice.ctx, store, pullRequest("web", { what: { tag: "v1" } })), {
    code: "REGISTRY_TAG_NOT_FOUND",
  });
});

test("a damaged tag or revision hides no other, and can be removed", async () => {
  using world = useWorld();
  const { alice, store, root } = world;
  const { id: first } = makeTemplate(alice.paths, "web");
  const key = makeKey(alice);
  await pushTemplate(alice.ctx, store, pushRequest("web", { tag: "v1", signingKey: key }));
  const { id: second } = makeTemplate(alice.paths, "web", { change: "1", builtAt: "2026-02-02T03:04:05.000Z" });
  for (const tag of ["v2", "v3"]) await pushTemplate(alice.ctx, store, pushRequest("web", { tag }));
  const there = (path: string) => join(root, "v1/templates/web", path);
  writeFileSync(there("tags/v2.json"), "{}");
  writeFileSync(there(`revisions/${second}.json`), "{}");

  const { revisions, damaged } = await remoteTemplateInfo(alice.ctx, store, web);
  assert.deepEqual(
    revisions.map(({ id, tags, signedBy }) => ({ id, tags, signedBy })),
    [{ id: first, tags: ["v1"], signedBy: [key.publicKey] }],
  );
  const objects = damaged.map(({ object }) => object);
  assert.deepEqual(objects, ["v1/templates/web/tags/v2.json", `v1/templates/web/revisions/${second}.json`]);

  const hint = /registry delete web:v2$/;
  await assert.rejects(pushTemplate(alice.ctx, store, pushRequest("web", { tag: "v2" })), {
    code: "REGISTRY_CORRUPT",
    hint,
  });
  await assert.rejects(
    deleteRemote(alice.ctx, store, web, { revision: second }),
    { hint },
    "it may be what the tag means",
  );
  await deleteRemote(alice.ctx, store, web, { tag: "v2" });
  await pushTemplate(alice.ctx, store, pushRequest("web", { tag: "v2" }));
  for (const tag of ["v2", "v3"]) await deleteRemote(alice.ctx, store, web, { tag });
  writeFileSync(there(`revisions/${second}.json`), "{}");
  await deleteRemote(alice.ctx, store, web, { revision: second });
  assert.deepEqual((await remoteTemplateInfo(alice.ctx, store, web)).damaged, []);
});

test("a tag of a revision that is gone is told", async () => {
  using world = useWorld();
  const { alice, store } = world;
  const { id } = makeTemplate(alice.paths, "web");
  await pushTemplate(alice.ctx, store, pushRequest("web"));
  await store.delete(revisionKey(web, id), alice.ctx.signal);
  const [damage] = (await remoteTemplateInfo(alice.ctx, store, web)).damaged;
  assert.match(damage!.reason, new RegExp(`${id.slice(0, 12)}, which is not there`));
});
