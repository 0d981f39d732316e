import assert from "node:assert/strict";
import { test } from "node:test";
import { QEMU_HERE } from "../../test/support/data-directory.ts";
import type { HypervisorIdentity } from "../hypervisor/driver.ts";
import type { Snapshot } from "../template/snapshot.ts";
import { type StoredSnapshot, snapshotKey } from "../template/snapshots.ts";
import { planStart, type StartWish } from "./start-plan.ts";

const sizes = { cpus: 2, memMiB: 1024, dataDiskMiB: 0 };

function snapshot(identity: Partial<HypervisorIdentity> = {}, other: Partial<Snapshot> = {}): StoredSnapshot {
  const hypervisor = { ...QEMU_HERE, ...identity };
  const file = { file: "f", size: 1, sha256: "0".repeat(64) };
  const described: Snapshot = {
    version: 1,
    revision: "",
    hypervisor,
    ...sizes,
    createdAt: "2026-01-01T00:00:00.000Z",
    bootMs: 1,
    healthyMs: 1,
    files: { vmstate: file, memory: file },
    ...other,
  };
  return { key: snapshotKey(hypervisor), directory: "/snapshots", snapshot: described };
}

function plan(wish: Partial<StartWish>) {
  return planStart({ host: QEMU_HERE, snapshots: [snapshot()], sizes, cold: false, keptDataDisk: false, ...wish });
}

test("a snapshot that fits the machine and the sizes is restored", () => {
  const fitting = snapshot();
  const others = [snapshot({ version: "8.0.0" }), snapshot({ cpuModel: "host", accelerator: "kvm" })];
  assert.deepEqual(plan({ snapshots: [...others, fitting] }), { start: "restored", snapshot: fitting });
});

test("everything else boots, with the reason in one sentence", () => {
  const reasons: [Partial<StartWish>, string][] = [
    [{ cold: true }, "a cold boot was asked for"],
    [{ snapshots: [] }, "the revision has no snapshot"],
    [{ keptDataDisk: true }, "it continues with its own data disk, which no snapshot knows"],
    [
      { snapshots: [snapshot({ version: "8.0.0" })] },
      "no snapshot fits this machine: hypervisor version is 8.0.0 there and 7.2.0 here",
    ],
    [{ sizes: { ...sizes, memMiB: 2048 } }, "a snapshot keeps its sizes: mem is 1024 in it and 2048 was asked for"],
    [
      { sizes: { cpus: 4, memMiB: 1024, dataDiskMiB: 64 } },
      "a snapshot keeps its sizes: cpus is 2 in it and 4 was asked for, data disk is 0 in it and 64 was asked for",
    ],
  ];
  for (const [wish, reason] of reasons) assert.deepEqual(plan(wish), { start: "booted", reason });
});

test("of several snapshots that do not fit, the nearest one's differences are told", () => {
  const far = snapshot({ version: "8.0.0", accelerator: "kvm", cpuModel: "host" });
  const near = snapshot({ layout: 0 });
  assert.deepEqual(plan({ snapshots: [far, near] }), {
    start: "booted",
    reason: "no snapshot fits this machine: device layout is 0 there and 1 here",
  });
});
