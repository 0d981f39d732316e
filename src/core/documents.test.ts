import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import * as v from "valibot";
import { type DocumentKind, parseDocument, readDocument, writeDocument } from "./documents.ts";
import { run } from "./process.ts";

interface Pet {
  version: 2;
  name: string;
  legs: number;
}
const PetDocument: DocumentKind<Pet> = {
  title: "pet",
  version: 2,
  schema: v.strictObject({ version: v.literal(2), name: v.string(), legs: v.number() }),
  // Version 1 knew only pets with four legs.
  upgrades: { 1: (old) => ({ ...old, version: 2, legs: 4 }) },
};

const directory = mkdtempSync(join(tmpdir(), "mvm-documents-"));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, "pet.json");

test("a document is read as it was written, with its version in it", () => {
  writeDocument(PetDocument, path, { name: "Tux", legs: 2 });
  assert.equal(readFileSync(path, "utf8"), '{\n  "version": 2,\n  "name": "Tux",\n  "legs": 2\n}\n');
  assert.deepEqual(readDocument(PetDocument, path), { version: 2, name: "Tux", legs: 2 });
});

test("no file is no document", () => {
  assert.equal(readDocument(PetDocument, join(directory, "none.json")), undefined);
  assert.equal(readDocument(PetDocument, join(path, "below-a-file.json")), undefined);
});

test("an older version is upgraded when read", () => {
  assert.deepEqual(parseDocument(PetDocument, '{"version":1,"name":"Rex"}', path), {
    version: 2,
    name: "Rex",
    legs: 4,
  });
});

test("a newer version is refused, never guessed at", () => {
  assert.throws(() => parseDocument(PetDocument, '{"version":3,"name":"Rex","wings":2}', path), {
    code: "NEWER_VERSION",
    message: /pet\.json was written by a newer mvmctl \(pet version 3; this one knows 2\)/,
    hint: "update mvmctl",
  });
});

test("a damaged document is refused with its path and what is wrong with it", () => {
  const damaged: [string, RegExp][] = [
    ["", /it is empty/],
    ["  \n", /it is empty/],
    ['{"version":2,"name":"T', /not valid JSON/],
    ["\x00\xff\x13", /not valid JSON/],
    ["[]", /not a JSON object/],
    ["null", /not a JSON object/],
    ['"text"', /not a JSON object/],
    ['{"name":"Tux"}', /it has no version/],
    ['{"version":"2"}', /it has no version/],
    ['{"version":0}', /it has no version/],
    ['{"version":1.5}', /it has no version/],
    ['{"version":2,"name":"Tux","legs":"two"}', /legs: .*number/],
    ['{"version":2,"name":"Tux"}', /legs/],
    ['{"version":2,"name":"Tux","legs":2,"wings":2}', /wings/],
  ];
  for (const [text, why] of damaged) {
    assert.throws(
      () => parseDocument(PetDocument, text, path),
      (error: Error & { code: string }) => {
        assert.equal(error.code, "CORRUPT_FILE", text);
        assert.match(error.message, /^the pet .*pet\.json is damaged: /);
        assert.match(error.message, why);
        return true;
      },
    );
  }
});

test("a file that is far too large is not read", () => {
  const large = join(directory, "large.json");
  writeFileSync(large, "");
  truncateSync(large, 2 ** 40); // all holes: it takes no space
  assert.throws(() => readDocument(PetDocument, large), {
    code: "CORRUPT_FILE",
    message: /it has 1099511627776 bytes/,
  });
});

test("what is no file is not waited for", async () => {
  const pipe = join(directory, "pipe.json");
  await run("mkfifo", [pipe]);
  assert.throws(() => readDocument(PetDocument, pipe), { code: "CORRUPT_FILE", message: /it is not a file/ });
  assert.throws(() => readDocument(PetDocument, directory), { code: "CORRUPT_FILE", message: /it is not a file/ });
});
