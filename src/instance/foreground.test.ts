import assert from "node:assert/strict";
import { test } from "node:test";
import { saysShutDown } from "./foreground.ts";

test("a guest that powers off or reboots in order says so last on its console", () => {
  assert.ok(saysShutDown("[    0.1] Linux\r\n[   12.345678] reboot: Restarting system\r\n"));
  assert.ok(saysShutDown("reboot: Power down\n"));
  for (const console of [
    "",
    "[    1.0] Run /init as init process\n",
    "[    9.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n",
    `[    0.2] reboot: Restarting system\n${"[    1.0] a line\n".repeat(5)}`,
  ])
    assert.equal(saysShutDown(console), false, console);
});
