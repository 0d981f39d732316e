import assert from "node:assert/strict";
import { mkdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseTemplateName } from "../../src/core/names.ts";
import { resolvePaths } from "../../src/core/paths.ts";
import { addRevision, addSnapshot, QEMU_HERE } from "../support/data-directory.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";

describe("mvmctl template info", () => {
  let mvm: Mvmctl;
  before(() => {
    mvm = useMvmctl();
  });
  after(() => mvm[Symbol.dispose]());

  test("shows the snapshots that can be used, and why the others can't", async () => {
    const web = parseTemplateName("web");
    const paths = resolvePaths(mvm.env);
    await mvm.ok(["template", "create", "web", "--flake", join(REPOSITORY, "examples", "hello")]);
    const id = addRevision(paths, web, { kernel: "a kernel", builtAt: "2026-01-01T00:00:00.000Z" });
    addSnapshot(paths.snapshots(web, id), QEMU_HERE);
    const cut = addSnapshot(paths.snapshots(web, id), { ...QEMU_HERE, version: "8.0.0" });
    truncateSync(join(cut, "mem.bin"), 4096);
    mkdirSync(join(paths.snapshots(web, id), "empty"));
    const text = await mvm.ok(["template", "info", "web"]);
    assert.match(text, /^ {4}snapshot for qemu 7\.2\.0 /m);
    assert.match(text, /^ {4}snapshot qemu-8\.0\.0\S+ {2}damaged: mem\.bin has 4096 bytes instead of 1048576$/m);
    assert.match(text, /^ {4}snapshot empty {2}damaged: snapshot\.json is missing$/m);
  });
});
