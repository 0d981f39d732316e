import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuHasVirtualisation } from "./kvm-probe.ts";

const cpuinfo = (flags: string) =>
  `processor\t: 0\nmodel name\t: Some CPU with vmx in its name\nflags\t\t: ${flags}\nbugs\t\t: svm\n`;

test("a CPU that can run guests says so among its flags, and nowhere else", () => {
  assert.ok(cpuHasVirtualisation(cpuinfo("fpu vmx sse")));
  assert.ok(cpuHasVirtualisation(cpuinfo("fpu sse svm")));
  assert.ok(!cpuHasVirtualisation(cpuinfo("fpu sse svm_lock vmxnet")));
  assert.ok(!cpuHasVirtualisation(""));
});
