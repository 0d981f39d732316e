import assert from "node:assert/strict";
import { test } from "node:test";
import { runsInLima } from "./lima.ts";

const onMac = (...argv: string[]) => runsInLima(argv, {}, "darwin");

test("on Linux nothing runs in Lima, unless it is forced", () => {
  assert.ok(!runsInLima(["ls"], {}, "linux"));
  assert.ok(runsInLima(["ls"], { MVM_LIMA: "force" }, "linux"));
});

test("elsewhere everything does that needs Linux", () => {
  for (const command of ["ls", "run", "template", "doctor", "nonsense"]) assert.ok(onMac(command), command);
  for (const command of ["help", "completions", "setup"]) assert.ok(!onMac(command, "x"), command);
  assert.ok(!onMac());
});

test("help needs no VM, but that of a command in a guest does", () => {
  assert.ok(!onMac("run", "--help"));
  assert.ok(!onMac("exec", "-h"));
  assert.ok(onMac("exec", "svc", "ls", "--help"));
  assert.ok(onMac("run", "--", "-h"));
});
