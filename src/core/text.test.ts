import assert from "node:assert/strict";
import { test } from "node:test";
import { lastLines } from "./text.ts";

test("the last lines of a log, without empty ones", () => {
  assert.equal(lastLines("one\n\ntwo\r\n  three  \n\n", 2), "two\n  three");
  assert.equal(lastLines("", 5), "");
});

test("colours and control characters never reach the terminal", () => {
  assert.equal(lastLines("\x1b[1;31merror:\x1b[0m bad\x07\x00 thing\x08", 1), "error: bad thing");
});
