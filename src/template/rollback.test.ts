import assert from "node:assert/strict";
import { cpSync, mkdirSync } from "node:fs";
import { test } from "node:test";
import { addRevision, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseRevisionId, parseTemplateName } from "../core/names.ts";
import { createTemplate } from "./create.ts";
import { currentRevision, currentRevisionId } from "./revisions.ts";
import { rollbackTemplate } from "./rollback.ts";
import { TEMPLATE_DEFAULTS } from "./spec.ts";

const web = parseTemplateName("web");

/** A template that was built three times, oldest first. */
function useWeb() {
  const data = useDataDirectory();
  createTemplate(data.ctx, web, TEMPLATE_DEFAULTS, data.flake("service"));
  const build = (month: number) =>
    addRevision(data.paths, web, { kernel: `kernel ${month}`, builtAt: `2026-0${month}-01T00:00:00.000Z` });
  const built = [build(1), build(2), build(3)] as const;
  return { ...data, built };
}

test("without a revision, each rollback goes one build further back, and no revision is removed", async () => {
  using data = useWeb();
  const [first, second, third] = data.built;
  assert.deepEqual(await rollbackTemplate(data.ctx, web), { from: third, to: second });
  assert.equal(currentRevisionId(data.paths, web), second);
  assert.deepEqual(await rollbackTemplate(data.ctx, web), { from: second, to: first });
  assert.equal(currentRevision(data.paths, web)?.id, first);
  await assert.rejects(rollbackTemplate(data.ctx, web), {
    code: "NOTHING_TO_ROLL_BACK",
    message: /no revision before/,
  });
});

test("a revision is named by its id or the beginning of it, forwards too", async () => {
  using data = useWeb();
  const [first, , third] = data.built;
  assert.equal((await rollbackTemplate(data.ctx, web, first.slice(0, 8).toUpperCase())).to, first);
  assert.equal((await rollbackTemplate(data.ctx, web, third)).to, third);
});

test("the current revision is nothing to roll back to", async () => {
  using data = useWeb();
  await assert.rejects(rollbackTemplate(data.ctx, web, data.built[2]), {
    code: "NOTHING_TO_ROLL_BACK",
    message: /is the current revision of web already/,
  });
});

test("what names no revision, or more than one, is refused with what to do", async () => {
  using data = useWeb();
  const absent = data.built.every((id) => !id.startsWith("0000")) ? "0000" : "1111";
  await assert.rejects(rollbackTemplate(data.ctx, web, absent), {
    code: "REVISION_NOT_FOUND",
    hint: /template info web/,
  });
  for (const text of ["abc", "latest", "../..", ""]) {
    await assert.rejects(rollbackTemplate(data.ctx, web, text), { code: "INVALID_REVISION" }, text);
  }
});

test("an ambiguous beginning lists what it could be", async () => {
  using data = useWeb();
  const [first] = data.built;
  const twin = parseRevisionId(first.slice(0, 6) + "0".repeat(58));
  cpSync(data.paths.revision(web, first), data.paths.revision(web, twin), { recursive: true });
  await assert.rejects(rollbackTemplate(data.ctx, web, first.slice(0, 6)), {
    code: "AMBIGUOUS_REVISION",
    message: new RegExp(`2 revisions: .*${twin.slice(0, 12)}`),
  });
  assert.equal((await rollbackTemplate(data.ctx, web, first.slice(0, 12))).to, first);
});

test("before the first build there is nothing to roll back", async () => {
  using data = useDataDirectory();
  createTemplate(data.ctx, web, TEMPLATE_DEFAULTS, data.flake("service"));
  await assert.rejects(rollbackTemplate(data.ctx, web), {
    code: "NOTHING_TO_ROLL_BACK",
    message: /never built/,
    hint: /template build web/,
  });
  await assert.rejects(rollbackTemplate(data.ctx, parseTemplateName("api")), { code: "TEMPLATE_NOT_FOUND" });
});

test("a damaged revision is not rolled back to", async () => {
  using data = useWeb();
  const damaged = parseRevisionId("d".repeat(64));
  mkdirSync(data.paths.revision(web, damaged));
  await assert.rejects(rollbackTemplate(data.ctx, web, damaged), { code: "REVISION_NOT_FOUND" });
});
