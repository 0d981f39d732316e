import assert from "node:assert/strict";
import { test } from "node:test";
import { isName, parseInstanceName, parseLabel, parseRevisionId, parseTemplateName, shortRevision } from "./names.ts";

test("names are lower-case letters, digits, '.', '_' and '-', and begin with a letter or digit", () => {
  for (const name of ["a", "0", "my-service", "web.v2_x", "a".repeat(63)]) assert.equal(parseTemplateName(name), name);
});

test("a name that could leave its directory, or be mistaken for something else, is refused with the reason", () => {
  const refused: [string, RegExp][] = [
    ["", /it is empty/],
    ["..", /must begin with a letter or a digit/],
    ["../x", /must begin with a letter or a digit/],
    [".hidden", /must begin with a letter or a digit/],
    ["-rf", /must begin with a letter or a digit/],
    ["a/b", /only a-z/],
    ["a b", /only a-z/],
    ["a\0", /only a-z/],
    ["a\n", /only a-z/],
    ["café", /only a-z/],
    ["Service", /upper-case/],
    ["a".repeat(64), /64 characters, and 63 is the most/],
    ["a".repeat(300), /300 characters/],
  ];
  for (const [name, why] of refused) {
    assert.throws(() => parseTemplateName(name), { code: "INVALID_NAME", message: why }, JSON.stringify(name));
    assert.throws(() => parseInstanceName(name), { code: "INVALID_NAME" });
    assert.equal(isName(name), false);
  }
});

test("what is wrong is shown shortened and without control characters", () => {
  assert.throws(() => parseTemplateName("\x1b[31mred"), { message: /^'\?\[31mred'/ });
  assert.throws(
    () => parseTemplateName("A".repeat(300)),
    (error: Error) => error.message.length < 200,
  );
});

test("roles and profiles may have upper case and underscores, and no dots", () => {
  assert.equal(parseLabel("role", "worker_2"), "worker_2");
  assert.equal(parseLabel("profile", "myProfile"), "myProfile");
  for (const text of ["", "a.b", "a b", "2nd", '"', "$x"]) {
    assert.throws(() => parseLabel("role", text), { code: "INVALID_NAME" }, text);
  }
});

test("a revision id is 64 hexadecimal digits, of which people see 12", () => {
  const id = parseRevisionId("ab".repeat(32));
  assert.equal(shortRevision(id), "abababababab");
  for (const text of ["ab", "AB".repeat(32), `sha256:${id}`, `../${"a".repeat(61)}`]) {
    assert.throws(() => parseRevisionId(text), { code: "INVALID_REVISION" }, text);
  }
});
