import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type DataDirectory, useDataDirectory } from "../../test/support/data-directory.ts";
import type { TemplateName } from "../core/names.ts";
import { claimsOf } from "./keys.ts";
import type { TagRecord } from "./records.ts";
import type { Store } from "./store.ts";
import { DirectoryStore } from "./stores/directory.ts";
import { moveTag, readTag } from "./tags.ts";

const name = "web" as TemplateName;

function tagTo(digit: string): TagRecord {
  const revision = digit.repeat(64) as TagRecord["revision"];
  const at = "2026-05-01T00:00:00.000Z";
  return {
    version: 1,
    kind: "tag",
    template: name,
    tag: "latest",
    revision,
    builtAt: at,
    movedAt: at,
    signatures: [],
  };
}

function useStore(): DataDirectory & { readonly store: Store } {
  const directory = useDataDirectory();
  const root = join(directory.root, "registry");
  mkdirSync(root);
  return Object.assign(directory, { store: new DirectoryStore(root) });
}

for (const conditional of [true, false]) {
  const how = conditional ? "by conditions" : "by claims, where the store ignores conditions";
  test(`of pushes that saw the same tag exactly one moves it, and the others are told: ${how}`, async () => {
    for (let round = 0; round < 10; round++) {
      using world = useStore();
      const { ctx, store } = world;
      if (round % 2 === 1) await moveTag(ctx, store, undefined, tagTo("0"), conditional);
      const found = await readTag(ctx, store, name, "latest");
      const moves = ["a", "b", "c"].map((digit) => moveTag(ctx, store, found, tagTo(digit), conditional));
      const results = await Promise.allSettled(moves);
      const won = results.flatMap(({ status }, index) => (status === "fulfilled" ? ["abc"[index]!] : []));
      assert.equal(won.length, 1, `round ${round}: ${won.length} won`);
      for (const result of results) if (result.status === "rejected") assert.equal(result.reason.code, "TAG_MOVED");
      const now = await readTag(ctx, store, name, "latest");
      assert.equal(now?.record.revision, won[0]!.repeat(64));
    }
  });
}

test("a push that is stopped while it waits for another's claim takes its own back", async () => {
  using world = useStore();
  const { ctx, store } = world;
  const claims = claimsOf(name, "latest");
  await store.put(`${claims}zzz.json`, Buffer.from("{}"), {}, ctx.signal);
  const abort = new AbortController();
  const moving = moveTag({ ...ctx, signal: abort.signal }, store, undefined, tagTo("a"), false);
  const own = async () => {
    for await (const { key } of store.list(claims, ctx.signal)) if (!key.endsWith("zzz.json")) return key;
    return undefined;
  };
  while (!(await own())) await new Promise((resolve) => setImmediate(resolve));
  abort.abort(new Error("stopped"));
  await assert.rejects(moving);
  assert.equal(await own(), undefined);
});
