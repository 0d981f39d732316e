import assert from "node:assert/strict";
import { test } from "node:test";
import { panicOn } from "./guest-panic.ts";

const trace = "[    1.4]  panic+0x118/0x2f4\r\n[    1.5] Kernel Offset: disabled\r\n";

test("a panic is told by its reason and what came before it, without the trace behind it", () => {
  const console = `[    1.0] Run /init as init process\r\n[    1.3] Kernel panic - not syncing: No working init found.\r\n${trace}`;
  assert.deepEqual(panicOn(console), {
    reason: "No working init found.",
    outOfMemory: false,
    lines: "[    1.0] Run /init as init process\n[    1.3] Kernel panic - not syncing: No working init found.",
  });
  assert.equal(panicOn("[    1.0] all is well\n"), undefined);
});

test("no memory left is a reason of its own", () => {
  const dead = (reason: string) => `[    1.3] Kernel panic - not syncing: ${reason}\n${trace}`;
  assert.ok(panicOn(dead("System is deadlocked on memory"))?.outOfMemory);
  const killed = "[    1.2] Out of memory: Killed process 1 (init) total-vm:2048kB\n";
  assert.ok(panicOn(killed + dead("Attempted to kill init! exitcode=0x00000009"))?.outOfMemory);
  const longAgo = killed + "[    9.0] fine again\n".repeat(20);
  assert.equal(panicOn(longAgo + dead("sysrq triggered crash"))?.outOfMemory, false);
});
