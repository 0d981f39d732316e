import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { renderDocument } from "../../src/core/documents.ts";
import { TEMPLATE_DEFAULTS } from "../../src/template/spec.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";

const COUNT = 10_000;
const BROKEN = ["t0", "t5000", "t9999"];

describe(`${COUNT} templates, three of them broken`, () => {
  let mvm: Mvmctl;
  before(() => {
    mvm = useMvmctl();
    for (let index = 0; index < COUNT; index++) {
      const name = `t${index}`;
      const directory = join(mvm.dataDir, "templates", name);
      mkdirSync(directory, { recursive: true });
      const spec = { version: 1, name, ...TEMPLATE_DEFAULTS, flake: "/f", createdAt: "2026-01-01T00:00:00Z" };
      writeFileSync(join(directory, "template.json"), BROKEN.includes(name) ? "{" : renderDocument(spec));
    }
  });
  after(() => mvm[Symbol.dispose]());

  test("a pipe gets all of the list, which marks the broken ones", async () => {
    const templates = await mvm.json<{ name: string; state: string }[]>(["template", "list"]);
    assert.equal(templates.length, COUNT);
    const broken = templates.filter(({ state }) => state === "broken").map(({ name }) => name);
    assert.deepEqual(broken.sort(), BROKEN);
  });

  test("the doctor names the broken ones, and nothing else", async () => {
    const { checks } = await mvm.json<{ checks: { subject: string }[] }>(["doctor"]);
    const named = checks.filter(({ subject }) => subject.startsWith("template"));
    assert.deepEqual(named.map(({ subject }) => subject.replace("template ", "")).sort(), BROKEN);
  });
});
