import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { instanceRecord, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseInstanceName } from "../core/names.ts";
import { ownIdentity } from "../core/process-identity.ts";
import type { InstanceRecord } from "./record.ts";
import { instanceStatus, writeRecord } from "./records.ts";
import { stopInstance } from "./stop.ts";
import { saysShutDown, whyEnded } from "./why-dead.ts";

const svc = parseInstanceName("svc");
const gone = { ...ownIdentity(), startTime: "1" };

/** A dead instance `svc`, with what is given of its record and its logs. */
function useDead(record: Partial<InstanceRecord>, logs: Record<string, string> = {}) {
  const data = useDataDirectory();
  const directory = data.paths.instance(svc);
  mkdirSync(directory, { recursive: true });
  for (const [name, text] of Object.entries(logs)) writeFileSync(join(directory, name), text);
  writeRecord(directory, instanceRecord(svc, { state: "running", starter: gone, process: gone, ...record }));
  const reason = () => {
    const status = instanceStatus(data.paths, svc);
    return status?.state === "dead" ? status.reason : status?.state;
  };
  return { ...data, reason };
}

test("why an instance ended is taken from what its guest and its hypervisor said last", () => {
  const panic =
    "[    3.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0b\r\n[    3.6] Call Trace:\r\n";
  const ends: [console: string, hypervisor: string, why: string][] = [
    [panic, "", "the guest's kernel panicked: Attempted to kill init! exitcode=0x0b"],
    ["[    4.3] reboot: Restarting system\r\n", "", "the guest shut itself down"],
    [
      "",
      "qemu-system-x86_64: warning: no such feature\nqemu-system-x86_64: terminating on signal 15 from pid 7 (sh)\n",
      "its hypervisor ended, and said last: qemu-system-x86_64: terminating on signal 15 from pid 7 (sh)",
    ],
    [
      "",
      '2026-01-02T03:04:05.678901234 [anonymous-instance:main] Shutting down VM after intercepting signal 11, code 1.\n2026-01-02T03:04:05.7 [anonymous-instance:fc_api] The API server received a Put request on "/actions".\n',
      "its hypervisor ended, and said last: 2026-01-02T03:04:05.678901234 [anonymous-instance:main] Shutting down VM after intercepting signal 11, code 1.",
    ],
    [
      "",
      "2026-01-02T03:04:05.678901234 [anonymous-instance:main] Running Firecracker v1.12.1\n",
      "its hypervisor was killed, or crashed, and left no message",
    ],
    ["[    1.0] a service\r\n", "qemu: warning: slow\n", "its hypervisor was killed, or crashed, and left no message"],
    ["", "", "its hypervisor was killed, or crashed, and left no message"],
    ["", `\x1b[31m${"x".repeat(500)}\n`, `its hypervisor ended, and said last: ${"x".repeat(160)}…`],
  ];
  for (const [console, hypervisor, why] of ends) assert.equal(whyEnded({ console, hypervisor }), why);
});

test("a dead instance's status says why, also after a restart of the machine and of a start that was killed", () => {
  using panicked = useDead({}, { "console.log": `${"early\n".repeat(9999)}Kernel panic - not syncing: why\n` });
  assert.equal(panicked.reason(), "the guest's kernel panicked: why");
  using restarted = useDead({ process: { ...gone, bootId: "another" } });
  assert.equal(restarted.reason(), "this machine was restarted while it ran");
  using killed = useDead({ state: "starting" });
  assert.equal(killed.reason(), "the mvmctl that started it was killed before it was ready");
});

test("stopping a dead instance does not forget why it died", async () => {
  using data = useDead({}, { "hypervisor.log": "qemu: out of memory\n" });
  const outcome = await stopInstance(data.ctx, svc, { timeoutMs: 1000 });
  assert.deepEqual(outcome, {
    name: svc,
    how: "already",
    reason: "its hypervisor ended, and said last: qemu: out of memory",
  });
  assert.equal(data.reason(), "its hypervisor ended, and said last: qemu: out of memory");
});

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
