import assert from "node:assert/strict";
import { test } from "node:test";
import { QEMU_HERE } from "../../test/support/data-directory.ts";
import type { VmConfig } from "./driver.ts";
import {
  kernelCommandLine,
  LEAST_AGENT_PORTS,
  type MemorySource,
  MOST_AGENT_PORTS,
  type QemuHost,
  qemuArguments,
} from "./qemu-arguments.ts";

const config: VmConfig = {
  directory: "/data/instances/web",
  cpus: 2,
  memMiB: 512,
  kernel: "/revision/vmlinux",
  initrd: "/revision/initrd",
  rootfs: { path: "/revision/rootfs.erofs", type: "erofs" },
  kernelCommandLine: "mvm.role=worker",
  dataDisk: undefined,
  ports: [],
};
const tcg: QemuHost = { identity: QEMU_HERE, tscKHz: 2_400_000 };
const kvm: QemuHost = { ...tcg, identity: { ...QEMU_HERE, accelerator: "kvm", cpuModel: "Some CPU" } };
const anonymous: MemorySource = { kind: "anonymous" };
const shared: MemorySource = { kind: "shared", path: "/snapshot/mem.bin" };
const private_: MemorySource = { kind: "private", path: "/snapshot/mem.bin" };
const files = { vmstate: "/snapshot/vmstate.bin", memory: "/snapshot/mem.bin" };

/** The values of an option, each time it is given. */
function values(args: string[], option: string): string[] {
  return args.flatMap((argument, index) => (argument === option ? [args[index + 1]!] : []));
}

test("a VM is made of what its configuration says", () => {
  const args = qemuArguments(config, tcg, anonymous, undefined);
  assert.deepEqual(values(args, "-smp"), ["2"]);
  assert.deepEqual(values(args, "-m"), ["512M"]);
  assert.deepEqual(values(args, "-kernel"), ["/revision/vmlinux"]);
  assert.deepEqual(values(args, "-initrd"), ["/revision/initrd"]);
  assert.deepEqual(values(args, "-object"), ["memory-backend-ram,id=ram,size=512M"]);
  assert.equal(agentPorts(args), MOST_AGENT_PORTS);
});

function agentPorts(args: string[]): number {
  return args.filter((argument) => argument.startsWith("virtserialport,")).length;
}

test("a small guest has fewer agent ports, which take memory", () => {
  assert.equal(agentPorts(qemuArguments({ ...config, memMiB: 128 }, tcg, anonymous, undefined)), LEAST_AGENT_PORTS);
});

/** All arguments but those that may differ between a VM that was captured and its clones. */
function machine(args: string[]): string[] {
  const free = ["-name", "-object", "-kernel", "-initrd", "-append", "-incoming"];
  return args.filter((argument, index) => !free.includes(argument) && !free.includes(args[index - 1] ?? ""));
}

test("QEMU asks for no display, takes no user's configuration, and ends where the guest would reboot", () => {
  const args = qemuArguments(config, tcg, anonymous, undefined);
  for (const flag of ["-nodefaults", "-no-user-config", "-no-reboot"]) assert.ok(args.includes(flag), flag);
  assert.deepEqual(values(args, "-display"), ["none"]);
});

test("a restored VM has the very machine that was captured; its kernel is in its memory", () => {
  const captured = qemuArguments(config, tcg, shared, undefined);
  const restored = qemuArguments({ ...config, directory: "/data/instances/web-2" }, tcg, private_, files);
  assert.deepEqual(machine(restored), machine(captured));
  assert.ok(machine(restored).length > 40);
  assert.deepEqual(values(restored, "-incoming"), ["defer"]);
  assert.deepEqual(values(captured, "-incoming"), []);
});

test("a capture writes its memory through to the file; a clone never does", () => {
  assert.match(
    values(qemuArguments(config, tcg, shared, undefined), "-object")[0]!,
    /mem-path=\/snapshot\/mem\.bin,share=on$/,
  );
  assert.match(
    values(qemuArguments(config, tcg, private_, files), "-object")[0]!,
    /mem-path=\/snapshot\/mem\.bin,share=off$/,
  );
});

test("the root image is only read, by any number of VMs at once; the data disk is written", () => {
  const args = qemuArguments({ ...config, dataDisk: "/data/instances/web/data.img" }, tcg, anonymous, undefined);
  const [root, data, ...more] = values(args, "-drive");
  assert.match(root!, /readonly=on,file\.locking=off,file=\/revision\/rootfs\.erofs$/);
  assert.match(data!, /file=\/data\/instances\/web\/data\.img$/);
  assert.doesNotMatch(data!, /readonly/);
  assert.deepEqual(more, []);
});

test("published ports are forwarded from their own addresses", () => {
  const ports = [
    { hostAddress: "127.0.0.1", hostPort: 8080, guestPort: 80 },
    { hostAddress: "0.0.0.0", hostPort: 2222, guestPort: 22 },
  ];
  const [network] = values(qemuArguments({ ...config, ports }, tcg, anonymous, undefined), "-netdev");
  assert.equal(network, "user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:0.0.0.0:2222-:22");
});

test("a network of the VM's own takes the place of QEMU's, and the snapshot of a VM that had QEMU's", () => {
  const network = {
    netns: "/proc/1/ns/net",
    tap: "mvm0",
    guestMac: "52:54:00:12:34:56",
    guestAddress: "10.0.2.15/24,10.0.2.2,10.0.2.3",
  };
  const ports = [{ hostAddress: "127.0.0.1", hostPort: 8080, guestPort: 80 }];
  const args = qemuArguments({ ...config, ports, network }, tcg, anonymous, undefined);
  const [own, unused, ...more] = values(args, "-netdev");
  assert.match(own!, /^tap,id=net0,ifname=mvm0,/);
  // Nothing is attached to it, and ports are published by the network.
  assert.match(unused!, /^user,id=unused,.*restrict=on$/);
  assert.deepEqual(more, []);
  assert.deepEqual(values(args, "-device").filter((device) => device.startsWith("virtio-net-device,")).length, 1);
});

test("a comma in a path is part of the path", () => {
  const odd = {
    ...config,
    directory: "/a,b/web,1",
    dataDisk: "/a,b/data.img",
    rootfs: { path: "/a,b/rootfs.ext4", type: "ext4" },
  };
  const args = qemuArguments(odd, tcg, { kind: "shared", path: "/a,b/mem.bin" }, undefined);
  assert.match(values(args, "-drive").join(" "), /file=\/a,,b\/rootfs\.ext4 .*file=\/a,,b\/data\.img/);
  assert.match(values(args, "-object")[0]!, /mem-path=\/a,,b\/mem\.bin,/);
  assert.deepEqual(values(args, "-name"), ["mvm web,,1"]);
});

test("sockets are named within the VM's directory, so that a long path is no obstacle", () => {
  const args = qemuArguments({ ...config, directory: `/${"d".repeat(200)}` }, tcg, anonymous, undefined);
  for (const chardev of values(args, "-chardev")) assert.match(chardev, /path=[a-z0-9.]+(,|$)/);
});

test("the kernel is told its root, to wait for its identity, and what the image and the template add", () => {
  const line = kernelCommandLine({ ...config, kernelCommandLine: "loglevel=7 mvm.role=worker" }, tcg);
  assert.match(line, /root=\/dev\/vda rootfstype=erofs ro/);
  assert.match(line, /mvm\.hold=1/);
  assert.match(line, /mvm\.net=10\.0\.2\.15\/24,10\.0\.2\.2,10\.0\.2\.3/);
  assert.match(line, / loglevel=7 mvm\.role=worker$/);
});

test("an emulated guest is told its clock's rate, which it could not measure; under KVM it can", () => {
  assert.match(kernelCommandLine(config, tcg), /tsc_early_khz=2400000/);
  assert.match(kernelCommandLine(config, tcg), / initcall_blacklist=tracer_init_tracefs /);
  const traced = kernelCommandLine({ ...config, kernelCommandLine: "initcall_blacklist=" }, tcg);
  assert.doesNotMatch(traced, /tracefs/, "an image can have it");
  assert.doesNotMatch(kernelCommandLine(config, kvm), /tsc| {2}/);
});

test("KVM shows the guest the host's CPU; emulation shows all that it can emulate", () => {
  const args = qemuArguments(config, kvm, anonymous, undefined);
  assert.deepEqual(values(args, "-cpu"), ["host"]);
  assert.match(values(args, "-M")[0]!, /accel=kvm/);
  assert.match(values(qemuArguments(config, tcg, anonymous, undefined), "-cpu")[0]!, /^max,/);
});
