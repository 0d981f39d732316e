import assert from "node:assert/strict";
import { test } from "node:test";
import { type Confinement, confinedCommand } from "./firecracker-namespace.ts";

const plain: Confinement = {
  mountPoint: "/vms/a/root",
  binds: [
    { from: "/store/it's $(a) root", at: "/vm/rootfs", writable: false },
    { from: "/vms/a/run", at: "/run", writable: true },
  ],
  binary: "/opt/firecracker-v1.16.1-x86_64",
  args: ["--api-sock", "/run/api.sock"],
  opensTap: false,
  unprivileged: false,
};
const jail = {
  jailer: "/opt/jailer-v1.16.1-x86_64",
  id: "a-0123",
  uid: 1234,
  gid: 4321,
  cgroup: { "memory.max": "1000000", "cpu.max": "200000 100000" },
};

/** A command line's arguments behind the script, up to the `--` that ends the binds, and behind it. */
function split(command: readonly string[]): { wrapper: string[]; script: string; binds: string[]; program: string[] } {
  const at = command.indexOf("sh");
  const rest = command.slice(at + 3);
  const end = rest.indexOf("--");
  return {
    wrapper: command.slice(0, at),
    script: command[at + 2]!,
    binds: rest.slice(1, end),
    program: rest.slice(end + 1),
  };
}

test("Firecracker gets a root of its own, in which are its VM's files and itself", () => {
  const { wrapper, script, binds, program } = split(confinedCommand(plain));
  assert.deepEqual(wrapper, ["unshare", "--mount", "--"]);
  assert.deepEqual(binds, [
    ...["/vms/a/root", ""],
    ...["ro", "/store/it's $(a) root", "/vm/rootfs"],
    ...["rw", "/vms/a/run", "/run"],
    ...["ro", "/opt/firecracker-v1.16.1-x86_64", "/firecracker"],
  ]);
  assert.deepEqual(program, ["-all,+sys_chroot", "/firecracker", "--api-sock", "/run/api.sock"]);
  assert.ok(!script.includes("/store"), "a path is an argument, and never part of the script");
});

test("of root's powers Firecracker keeps what opens a tap, and only where there is one", () => {
  assert.equal(split(confinedCommand({ ...plain, opensTap: true })).program[0], "-all,+sys_chroot,+net_admin");
});

test("a user other than root becomes root of a user namespace", () => {
  const { wrapper } = split(confinedCommand({ ...plain, unprivileged: true }));
  assert.deepEqual(wrapper, ["unshare", "--user", "--map-root-user", "--mount", "--"]);
});

test("the jailer gets its user, its limits, and a root that has the VM's files already", () => {
  const { wrapper, binds, program } = split(confinedCommand({ ...plain, jail }));
  assert.deepEqual(wrapper, ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--"]);
  assert.deepEqual(binds.slice(0, 2), ["/vms/a/root", "/firecracker-v1.16.1-x86_64/a-0123/root"]);
  assert.ok(!binds.includes("/firecracker"), "the jailer copies the program itself");
  const expected = [
    "/opt/jailer-v1.16.1-x86_64 --id a-0123 --exec-file /opt/firecracker-v1.16.1-x86_64 --uid 1234 --gid 4321",
    "--chroot-base-dir /vms/a/root --cgroup-version 2 --parent-cgroup mvmctl --cgroup memory.max=1000000 --cgroup",
  ];
  assert.deepEqual(program, [
    ...expected.join(" ").split(" "),
    "cpu.max=200000 100000",
    ...["--", "--api-sock", "/run/api.sock"],
  ]);
});
