import assert from "node:assert/strict";
import { test } from "node:test";
import { isMvmError } from "../../test/support/errors.ts";
import { parseReference } from "./keys.ts";

test("a template, a tag or a revision is named, and nothing of what was typed is passed over", () => {
  assert.deepEqual(parseReference("web"), { template: "web" });
  assert.deepEqual(parseReference("web:v1.2"), { template: "web", tag: "v1.2" });
  assert.deepEqual(parseReference("web@3f9C"), { template: "web", revision: "3f9C" });
  for (const text of [
    "",
    "@3f9c",
    "web:",
    "web:v1:v2",
    "web:v1@3f9c",
    "web@3f9c:v1",
    "web@3f9c@4a5b",
    "web:v1\n",
    "WEB:v1",
  ])
    assert.throws(() => parseReference(text), isMvmError("INVALID_NAME"), text);
});
