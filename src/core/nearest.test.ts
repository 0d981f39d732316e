import assert from "node:assert/strict";
import { test } from "node:test";
import { nearest } from "./nearest.ts";

test("a slip of the finger finds what was meant", () => {
  const names = ["hello", "help", "postgres", "redis"];
  assert.equal(nearest("helo", names), "hello");
  assert.equal(nearest("postgers", names), "postgres");
  assert.equal(nearest("rediss", names), "redis");
  assert.equal(nearest("stpo", ["stop", "ls"]), "stop");
});

test("of several, the closest", () => {
  assert.equal(nearest("service-a", ["service-bc", "service-b", "service-xyz"]), "service-b");
});

test("a wholly different word suggests nothing", () => {
  assert.equal(nearest("web", ["postgres", "redis"]), undefined);
  assert.equal(nearest("x", []), undefined);
});
