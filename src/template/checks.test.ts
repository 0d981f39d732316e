import assert from "node:assert/strict";
import { mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { addRevision, addSnapshot, QEMU_HERE, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseTemplateName } from "../core/names.ts";
import { checkTemplates } from "./checks.ts";
import { createTemplate } from "./create.ts";
import { TEMPLATE_DEFAULTS } from "./spec.ts";

const web = parseTemplateName("web");

/** A data directory with one whole template, a revision and a snapshot of it. */
function useTemplate() {
  const data = useDataDirectory();
  createTemplate(data.ctx, web, { ...TEMPLATE_DEFAULTS, flake: data.flake("web") }, data.root);
  const id = addRevision(data.paths, web, { kernel: "a kernel", builtAt: "2026-01-01T00:00:00.000Z" });
  const revision = data.paths.revision(web, id);
  writeFileSync(join(revision, "rootfs.erofs"), Buffer.alloc(4096));
  const snapshot = addSnapshot(data.paths.snapshots(web, id), QEMU_HERE);
  return { data, revision, snapshot, check: () => checkTemplates(data.paths, data.ctx.signal) };
}

describe("looking for damaged templates", () => {
  test("a whole one is fine, and so is none", async () => {
    const { data, check } = useTemplate();
    using _data = data;
    assert.deepEqual(await check(), [{ subject: "templates", state: "ok", reason: "1, whole" }]);
    rmSync(data.paths.templates, { recursive: true });
    assert.equal((await check())[0]?.state, "ok");
  });

  const damages: [what: string, damage: (paths: { revision: string; snapshot: string }) => void, said: RegExp][] = [
    ["a cut manifest", ({ revision }) => truncateSync(join(revision, "manifest.json"), 20), /manifest.*not valid JSON/],
    ["a missing kernel", ({ revision }) => rmSync(join(revision, "vmlinux")), /vmlinux is missing/],
    ["a cut root", ({ revision }) => truncateSync(join(revision, "rootfs.erofs"), 1), /1 bytes instead of 4096/],
    ["altered state", ({ snapshot }) => writeFileSync(join(snapshot, "vmstate.bin"), "THE STATE"), /was altered/],
    ["a snapshot without its document", ({ snapshot }) => rmSync(join(snapshot, "snapshot.json")), /json is missing/],
    ["an empty snapshot document", ({ snapshot }) => writeFileSync(join(snapshot, "snapshot.json"), ""), /it is empty/],
    ["a revision that is gone", ({ revision }) => rmSync(revision, { recursive: true }), /current revision .* missing/],
  ];
  for (const [what, damage, said] of damages) {
    test(`${what} is named, with a command that mends it, and other templates are looked at`, async () => {
      const { data, check, ...paths } = useTemplate();
      using _data = data;
      damage(paths);
      mkdirSync(data.paths.template(parseTemplateName("aaa")), { recursive: true });
      const [other, ...found] = await check();
      assert.match(`${other?.subject}: ${other?.reason}`, /^template aaa: .*template\.json is damaged/);
      assert.equal(found.length, 1);
      assert.equal(found[0]?.state, "warning");
      assert.match(found[0]?.subject ?? "", /^template web/);
      assert.match(found[0]?.reason ?? "", said);
      assert.match(found[0]?.mend ?? "", /mvmctl template/);
    });
  }
});
