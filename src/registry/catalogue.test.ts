import assert from "node:assert/strict";
import { test } from "node:test";
import { makeTemplate, pullRequest, pushRequest } from "../../test/support/registry.ts";
import { useWorld, web } from "../../test/support/registry-world.ts";
import { deleteRemote, listRemoteTemplates, remoteTemplateInfo } from "./catalogue.ts";
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
