import assert from "node:assert/strict";
import { linkSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { addRevision, addSnapshot, QEMU_HERE, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseTemplateName, type RevisionId } from "../core/names.ts";
import { createTemplate } from "./create.ts";
import { pruneTemplate } from "./prune.ts";
import { rollbackTemplate } from "./rollback.ts";
import { TEMPLATE_DEFAULTS } from "./spec.ts";

const web = parseTemplateName("web");
const KIB_64 = 64 * 1024;

/** A template with five revisions, each with 64 KiB of its own: the oldest first, and the last is the current one. */
function useRevisions() {
  const data = useDataDirectory();
  createTemplate(data.ctx, web, TEMPLATE_DEFAULTS, data.flake("service"));
  const ids = Array.from({ length: 5 }, (_, index) => {
    const id = addRevision(data.paths, web, {
      kernel: "k".repeat(index + 1),
      builtAt: `2026-01-0${index + 1}T00:00:00Z`,
    });
    writeFileSync(join(data.paths.revision(web, id), "rootfs.erofs"), Buffer.alloc(KIB_64, 1));
    return id;
  }) as [RevisionId, RevisionId, RevisionId, RevisionId, RevisionId];
  const left = () =>
    ids.filter((id) => readdirSync(data.paths.revisions(web)).includes(id)).map((id) => ids.indexOf(id));
  const prune = (keep: number, more: { dryRun?: boolean; revisionsInUse?: () => string[] } = {}) =>
    pruneTemplate(data.ctx, web, { keep, dryRun: false, revisionsInUse: () => [], ...more });
  return { ...data, ids, left, prune };
}

test("old revisions go with their snapshots: not the current one, not an instance's, not the newest of the others", async () => {
  using data = useRevisions();
  const { ids, paths } = data;
  for (const id of ids) addSnapshot(paths.snapshots(web, id), QEMU_HERE);
  await rollbackTemplate(data.ctx, web, ids[1]);
  const planned = await data.prune(1, { dryRun: true, revisionsInUse: () => [ids[0]] });
  assert.deepEqual(data.left(), [0, 1, 2, 3, 4], "a dry run removes nothing");
  const removed = await data.prune(1, { revisionsInUse: () => [ids[0]] });
  assert.deepEqual(removed, planned);
  assert.deepEqual(
    removed.map(({ revision }) => ids.indexOf(revision)),
    [3, 2],
  );
  assert.deepEqual(data.left(), [0, 1, 4]);
  assert.deepEqual(await data.prune(1, { revisionsInUse: () => [ids[0]] }), []);
  await data.prune(0);
  assert.deepEqual(readdirSync(paths.revisions(web)), [ids[1]]);
});

test("what is freed is what no other revision has", async () => {
  using data = useRevisions();
  const rootfs = (index: number) => join(data.paths.revision(web, data.ids[index]!), "rootfs.erofs");
  // The oldest has the current one's file, and the two after it have one file together.
  for (const [from, to] of [
    [4, 0],
    [2, 1],
  ] as const) {
    rmSync(rootfs(to));
    linkSync(rootfs(from), rootfs(to));
  }
  const removed = await data.prune(0);
  const large = removed.filter(({ bytes }) => bytes >= KIB_64).map(({ revision }) => data.ids.indexOf(revision));
  assert.deepEqual(large, [3, 2]);
});

test("a revision that an instance was started from meanwhile stays, and so does a damaged one", async () => {
  using data = useRevisions();
  writeFileSync(join(data.paths.revision(web, data.ids[1]), "manifest.json"), "{");
  let asked = 0;
  const removed = await data.prune(0, { revisionsInUse: () => (++asked === 1 ? [] : [data.ids[2]]) });
  assert.deepEqual(
    removed.map(({ revision }) => data.ids.indexOf(revision)),
    [3, 0],
  );
  assert.deepEqual(data.left(), [1, 2, 4]);
  assert.equal(readdirSync(data.paths.revisions(web)).length, 3, "nothing half-removed is left");
});

test("a template that there is not is named", async () => {
  using data = useDataDirectory();
  const options = { keep: 0, dryRun: false, revisionsInUse: () => [] };
  await assert.rejects(pruneTemplate(data.ctx, web, options), { code: "TEMPLATE_NOT_FOUND" });
});
