import assert from "node:assert/strict";
import { test } from "node:test";
import { jailCgroup, jailerBeside, jailId, missingControllers } from "./firecracker-jail.ts";

test("a jail's name fits the jailer's rules, and is the VM's alone", () => {
  const long = jailId(`/vms/${"x_".repeat(100)}`);
  assert.match(long, /^[A-Za-z0-9-]{1,64}$/);
  assert.notEqual(jailId("/vms/a"), jailId("/other/a"));
  assert.equal(jailCgroup("/vms/a"), `/sys/fs/cgroup/mvmctl/${jailId("/vms/a")}`);
});

test("the jailer is the one that came with the program", () => {
  assert.equal(jailerBeside("/opt/firecracker-v1.16.1-x86_64"), "/opt/jailer-v1.16.1-x86_64");
  assert.equal(jailerBeside("/usr/bin/firecracker"), "/usr/bin/jailer");
});

test("limits that this machine's cgroups can't keep are named", () => {
  const jail = { uid: 1, gid: 1, cgroup: { "memory.max": "1", "cpu.max": "1 1", "pids.max": "1" } };
  assert.deepEqual(missingControllers(jail, ["cpuset", "cpu", "io", "memory", "pids"]), []);
  assert.deepEqual(missingControllers(jail, ["cpu"]), ["memory", "pids"]);
  assert.deepEqual(missingControllers({ ...jail, cgroup: {} }, []), []);
});
