import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { addRevision, addSnapshot, QEMU_HERE, useDataDirectory } from "../../test/support/data-directory.ts";
import { until } from "../../test/support/wait.ts";
import { parseTemplateName } from "../core/names.ts";
import { findVmProcesses, VM_DIRECTORY_VARIABLE } from "../core/process-identity.ts";
import { createTemplate } from "./create.ts";
import { deleteTemplate } from "./delete.ts";
import { TEMPLATE_DEFAULTS } from "./spec.ts";
import { loadSpec, withTemplateLock } from "./store.ts";

const web = parseTemplateName("web");
const unused = { instancesOf: () => [] };

function useWeb() {
  const data = useDataDirectory();
  createTemplate(data.ctx, web, TEMPLATE_DEFAULTS, data.flake("service"));
  return data;
}

test("a template goes with its revisions and snapshots, read-only as they are", async () => {
  using data = useWeb();
  const id = addRevision(data.paths, web, { kernel: "k", builtAt: "2026-01-01T00:00:00Z" });
  chmodSync(join(addSnapshot(data.paths.snapshots(web, id), QEMU_HERE), "mem.bin"), 0o444);
  await deleteTemplate(data.ctx, web, unused);
  assert.deepEqual(readdirSync(data.paths.templates), []);
});

test("a template from which instances run is kept: the error names them, and what to type", async () => {
  using data = useWeb();
  await assert.rejects(deleteTemplate(data.ctx, web, { instancesOf: () => ["red-fox", "blue-owl"] }), {
    code: "TEMPLATE_IN_USE",
    message: "template web is in use: red-fox, blue-owl run from it",
    hint: "stop what runs first: mvmctl stop red-fox blue-owl",
  });
  assert.equal(loadSpec(data.paths, web).name, "web");
});

test("an instance that starts while its template is being deleted wins", async () => {
  using data = useWeb();
  const before = loadSpec(data.paths, web);
  let asked = 0;
  const instancesOf = () => (++asked === 1 ? [] : ["late-hare"]);
  await assert.rejects(deleteTemplate(data.ctx, web, { instancesOf }), {
    code: "TEMPLATE_IN_USE",
    message: /late-hare runs from it/,
  });
  assert.equal(asked, 2);
  assert.deepEqual(loadSpec(data.paths, web), before);
  assert.deepEqual(readdirSync(data.paths.templates), ["web"]);
});

test("a name that was taken anew in the meantime is left to the new template", async () => {
  using data = useWeb();
  let asked = 0;
  const instancesOf = () => {
    if (++asked === 1) return [];
    createTemplate(data.ctx, web, { ...TEMPLATE_DEFAULTS, cpus: 8 }, data.flake("service"));
    return ["late-hare"];
  };
  await deleteTemplate(data.ctx, web, { instancesOf });
  assert.equal(loadSpec(data.paths, web).cpus, 8);
  assert.deepEqual(readdirSync(data.paths.templates), ["web"]);
});

test("a damaged template can be deleted too", async () => {
  using data = useWeb();
  writeFileSync(data.paths.templateSpec(web), "damaged");
  await deleteTemplate(data.ctx, web, unused);
  assert.ok(!existsSync(data.paths.template(web)));
});

test("a template that is not there can't be deleted", async () => {
  using data = useWeb();
  await assert.rejects(deleteTemplate(data.ctx, parseTemplateName("webb"), unused), {
    code: "TEMPLATE_NOT_FOUND",
    hint: /did you mean 'web'/,
  });
});

test("a template that is being built is waited for, not pulled away", async () => {
  using data = useWeb();
  let deleting: Promise<void> | undefined;
  await withTemplateLock(data.ctx, web, "building web", async () => {
    deleting = deleteTemplate(data.ctx, web, unused);
    await until("the deletion waits", () => data.notes.some((note) => note.includes("building web")));
    assert.equal(loadSpec(data.paths, web).name, "web");
  });
  await deleting;
  assert.ok(!existsSync(data.paths.template(web)));
});

test("a temporary VM that a killed build left in the template is ended", async () => {
  using data = useWeb();
  const env = { ...process.env, [VM_DIRECTORY_VARIABLE]: join(data.paths.template(web), "revisions", "r", "vm") };
  const vm = spawn("sleep", ["1000"], { env, stdio: "ignore" });
  const ended = once(vm, "exit");
  await until("the VM runs", () => findVmProcesses(data.paths.template(web)).length === 1);
  await deleteTemplate(data.ctx, web, unused);
  assert.deepEqual(await ended, [null, "SIGKILL"]);
});
