import assert from "node:assert/strict";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ensureDirectory, readTextIfThere, replaceSymlink, writeFileAtomic } from "./files.ts";

const directory = mkdtempSync(join(tmpdir(), "mvm-files-"));
after(() => rmSync(directory, { recursive: true }));

test("a file is replaced as a whole: a reader that has the old one open keeps it", () => {
  const path = join(directory, "whole");
  writeFileAtomic(path, "old");
  const old = statSync(path).ino;
  writeFileAtomic(path, "new", { mode: 0o444 });
  assert.equal(readFileSync(path, "utf8"), "new");
  assert.notEqual(statSync(path).ino, old);
  assert.equal(statSync(path).mode & 0o777, 0o444);
});

test("what can't be written leaves the old file and nothing beside it", () => {
  const path = join(directory, "a-directory");
  mkdirSync(join(path, "full"), { recursive: true });
  const before = readdirSync(directory);
  assert.throws(() => writeFileAtomic(path, "text"), { code: "FILE_FAILED", message: /could not write .*a-directory/ });
  assert.deepEqual(readdirSync(directory), before);
});

test("a symbolic link is pointed elsewhere in one step", () => {
  const path = join(directory, "current");
  replaceSymlink(path, "revisions/1");
  replaceSymlink(path, "revisions/2");
  assert.equal(readlinkSync(path), "revisions/2");
  assert.ok(lstatSync(path).isSymbolicLink());
});

test("reading what is not there gives nothing; what is there and unreadable is an error", () => {
  assert.equal(readTextIfThere(join(directory, "missing")), undefined);
  assert.throws(() => readTextIfThere(directory), { code: "FILE_FAILED", message: /could not read/ });
});

test("a directory that can't be made is an error with its path", () => {
  const file = join(directory, "file");
  writeFileSync(file, "");
  assert.throws(() => ensureDirectory(join(file, "below")), {
    code: "FILE_FAILED",
    message: /could not create the directory .*file\/below/,
  });
});
