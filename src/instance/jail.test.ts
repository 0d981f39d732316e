import assert from "node:assert/strict";
import { test } from "node:test";
import { MiB } from "../core/sizes.ts";
import { jailFor } from "./jail.ts";

const sizes = { cpus: 2, memMiB: 512, dataDiskMiB: 0 };

test("each VM's jail has a user of its own, which is nobody else's", () => {
  const a = jailFor("/vms/a", sizes);
  assert.deepEqual(a, jailFor("/vms/a", sizes));
  assert.notEqual(a.uid, jailFor("/vms/b", sizes).uid);
  assert.ok(a.uid >= 0x7000_0000 && a.uid < 0x7100_0000, `${a.uid}`);
});

test("a jail's limits are what the VM has and its hypervisor needs", () => {
  const { cgroup } = jailFor("/vms/a", sizes);
  assert.ok(Number(cgroup["memory.max"]) > 512 * MiB);
  assert.equal(cgroup["cpu.max"], "200000 100000");
});
