import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isDynamic, tinyKernel } from "./tiny-kernel.ts";

test("a program that needs a dynamic linker is told from one that does not", () => {
  assert.ok(isDynamic(readFileSync("/bin/ls").subarray(0, 4096)));
  assert.ok(!isDynamic(tinyKernel()));
  assert.ok(!isDynamic(Buffer.from("#!/bin/sh\n")));
});
