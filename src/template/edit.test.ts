import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { addRevision, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseTemplateName } from "../core/names.ts";
import { createTemplate } from "./create.ts";
import { editTemplate } from "./edit.ts";
import { TEMPLATE_DEFAULTS } from "./spec.ts";
import { loadSpec } from "./store.ts";

const web = parseTemplateName("web");

function useWeb() {
  const data = useDataDirectory();
  const service = data.flake("service");
  createTemplate(data.ctx, web, TEMPLATE_DEFAULTS, service);
  return { ...data, service };
}

test("only what is given changes, and until the next build the outcome says what the current revision has", async () => {
  using data = useWeb();
  addRevision(data.paths, web, { kernel: "k", builtAt: "2026-01-01T00:00:00Z", flake: data.service });
  const before = loadSpec(data.paths, web);
  const { spec, pendingChanges } = await editTemplate(data.ctx, web, { memMiB: 512, cpus: 2 }, data.root);
  assert.deepEqual(spec, { ...before, memMiB: 512 });
  assert.deepEqual(loadSpec(data.paths, web), spec);
  assert.deepEqual(pendingChanges, ["mem: 512 MiB now, 1024 MiB in the current revision"]);
});

test("before the first build nothing is pending", async () => {
  using data = useWeb();
  assert.deepEqual((await editTemplate(data.ctx, web, { cpus: 4 }, data.root)).pendingChanges, []);
});

test("a damaged revision keeps nobody from editing", async () => {
  using data = useWeb();
  const id = addRevision(data.paths, web, { kernel: "k", builtAt: "2026-01-01T00:00:00Z" });
  writeFileSync(join(data.paths.revision(web, id), "manifest.json"), "");
  assert.equal((await editTemplate(data.ctx, web, { cpus: 4 }, data.root)).spec.cpus, 4);
});

test("a template whose flake moved is pointed at the new place", async () => {
  using data = useWeb();
  rmSync(data.service, { recursive: true });
  const moved = data.flake("moved");
  assert.equal((await editTemplate(data.ctx, web, { flake: "./moved" }, data.root)).spec.flake, moved);
});

test("nothing to change is an error: the user meant something", async () => {
  using data = useWeb();
  await assert.rejects(editTemplate(data.ctx, web, {}, data.root), {
    code: "NOTHING_TO_DO",
    message: /no setting was given/,
  });
  await assert.rejects(editTemplate(data.ctx, web, { cpus: 2, flake: data.service }, data.root), {
    code: "NOTHING_TO_DO",
    message: /has these settings already/,
  });
});

test("a wrong setting changes nothing", async () => {
  using data = useWeb();
  const before = loadSpec(data.paths, web);
  await assert.rejects(editTemplate(data.ctx, web, { cpus: 4, flake: "./nowhere" }, data.root), {
    code: "FLAKE_NOT_FOUND",
  });
  await assert.rejects(editTemplate(data.ctx, web, { cpus: 4, memMiB: 1 }, data.root), { code: "INVALID_SETTINGS" });
  assert.deepEqual(loadSpec(data.paths, web), before);
});

test("of two edits at once, none is lost", async () => {
  using data = useWeb();
  await Promise.all([
    editTemplate(data.ctx, web, { cpus: 4 }, data.root),
    editTemplate(data.ctx, web, { memMiB: 512 }, data.root),
  ]);
  const { cpus, memMiB } = loadSpec(data.paths, web);
  assert.deepEqual([cpus, memMiB], [4, 512]);
});
