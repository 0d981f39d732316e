import assert from "node:assert/strict";
import { test } from "node:test";
import type { VmConfig } from "./driver.ts";
import { bindsOf, firecrackerCommandLine, kernelBinds, snapshotToLoad } from "./firecracker-machine.ts";

const config: VmConfig = {
  directory: "/vms/a",
  cpus: 2,
  memMiB: 512,
  kernel: "/revision/vmlinux",
  initrd: "/revision/initrd",
  rootfs: { path: "/revision/rootfs.erofs", type: "erofs" },
  kernelCommandLine: "mvm.role=worker",
  dataDisk: undefined,
  ports: [],
};
const network = {
  netns: "/run/netns/a",
  tap: "tap0",
  guestMac: "06:00:00:00:00:01",
  guestAddress: "10.0.2.15/24,10.0.2.2,10.0.2.3",
};

test("the kernel is told its root, how to end, to wait for its identity, and what the image and the template add", () => {
  const line = firecrackerCommandLine(config);
  for (const part of ["root=/dev/vda rootfstype=erofs ro", "reboot=k", "mvm.hold=1", "mvm.role=worker"]) {
    assert.ok(line.includes(part), part);
  }
  assert.ok(!line.includes("mvm.net="));
  assert.match(firecrackerCommandLine({ ...config, network }), / mvm\.net=10\.0\.2\.15\/24,10\.0\.2\.2,10\.0\.2\.3 /);
});

test("a VM sees its root, which it only reads, and its data disk; a booting one its kernel too", () => {
  assert.deepEqual(bindsOf({ ...config, dataDisk: "/vms/a/data.img" }), [
    { from: "/revision/rootfs.erofs", at: "/vm/rootfs", writable: false },
    { from: "/vms/a/data.img", at: "/vm/data", writable: true },
  ]);
  const seen = kernelBinds(config).map(({ from, at, writable }) => [from, at, writable]);
  assert.deepEqual(seen, [
    ["/revision/vmlinux", "/vm/kernel", false],
    ["/revision/initrd", "/vm/initrd", false],
  ]);
});

test("every VM has the same paths inside, whatever they are outside: so any snapshot fits any place", () => {
  const elsewhere = { ...config, directory: "/b", rootfs: { path: "/c", type: "erofs" } };
  assert.deepEqual(snapshotToLoad(elsewhere), snapshotToLoad(config));
  assert.deepEqual(snapshotToLoad({ ...config, network }).network_overrides, [
    { iface_id: "eth0", host_dev_name: "tap0" },
  ]);
});
