import assert from "node:assert/strict";
import { test } from "node:test";
import { fileError, isErrno, MvmError, messageOf } from "./errors.ts";

function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: as Node says it`), { code });
}

test("a failed file call names the path, the cause and what helps", () => {
  const told: [string, string, RegExp, RegExp][] = [
    ["ENOSPC", "DISK_FULL", /could not write \/x: no space left/, /MVM_DATA_DIR/],
    ["EDQUOT", "DISK_FULL", /could not write \/x/, /quota/],
    ["EACCES", "FILE_FAILED", /permission denied/, /who owns/],
    ["EPERM", "FILE_FAILED", /permission denied/, /who owns/],
    ["EROFS", "FILE_FAILED", /read-only/, /writable/],
  ];
  for (const [code, expected, message, hint] of told) {
    const error = fileError(systemError(code), "/x", "write");
    assert.ok(error instanceof MvmError);
    assert.equal(error.code, expected);
    assert.match(error.message, message);
    assert.match(error.hint ?? "", hint);
    assert.ok(isErrno(error.cause, code));
  }
  for (const code of ["EIO", "EMFILE", "ENFILE", "ENOTDIR", "EISDIR"]) {
    assert.equal((fileError(systemError(code), "/x", "read") as MvmError).code, "FILE_FAILED", code);
  }
});

test("an error that nobody foresaw stays what it is", () => {
  const bug = new TypeError("undefined is not a function");
  assert.equal(fileError(bug, "/x", "read"), bug);
  const own = new MvmError("LOCKED", "it is locked");
  assert.equal(fileError(own, "/x", "read"), own);
});

test("whatever was thrown has a message", () => {
  assert.equal(messageOf(new Error("broken")), "broken");
  assert.equal(messageOf("thrown text"), "thrown text");
});
