import { basename } from "node:path";
import type { HypervisorIdentity, SnapshotFiles, VmConfig } from "./driver.ts";

/**
 * The command line of a QEMU microVM. A snapshot loads only into a machine with the same devices, so boot and restore
 * share everything here except where the memory comes from. Change the devices, and count up QEMU_LAYOUT.
 */
export const QEMU_LAYOUT = 1;

/** Agent ports: QEMU's socket chardev serves one client at a time, so a VM has several. */
export const AGENT_PORT_COUNT = 8;

/** Names relative to the VM's directory, which is QEMU's working directory: socket paths have 108 bytes at most (unix(7)). */
export const QMP_SOCKET = "qmp.sock";
export const agentSocket = (index: number) => `agent${index}.sock`;
export const CONSOLE_LOG = "console.log";
export const HYPERVISOR_LOG = "hypervisor.log";

/** QEMU's user network gives every VM the same private addresses; see "-netdev user" in qemu(1). */
export const GUEST_NETWORK = "10.0.2.15/24,10.0.2.2,10.0.2.3";

/** File descriptor through which a restored VM reads its vmstate. */
export const VMSTATE_FD = 3;

export type MemorySource =
  | { readonly kind: "anonymous" }
  /** Written through to this file: for a VM that will be snapshotted. */
  | { readonly kind: "shared"; readonly path: string }
  /** A snapshot's memory, mapped privately: the file is never written. */
  | { readonly kind: "private"; readonly path: string };

/** QEMU options take commas as separators; a doubled comma is a comma (qemu(1)). */
function value(text: string): string {
  return text.replaceAll(",", ",,");
}

function memoryBackend(memMiB: number, memory: MemorySource): string {
  const size = `size=${memMiB}M`;
  switch (memory.kind) {
    case "anonymous":
      return `memory-backend-ram,id=ram,${size}`;
    case "shared":
      return `memory-backend-file,id=ram,${size},mem-path=${value(memory.path)},share=on`;
    case "private":
      return `memory-backend-file,id=ram,${size},mem-path=${value(memory.path)},share=off`;
  }
}

export function kernelCommandLine(config: VmConfig): string {
  return [
    "console=ttyS0 quiet panic=-1 reboot=t",
    `root=/dev/vda rootfstype=${config.rootfs.type} ro`,
    `mvm.hold=1 mvm.net=${GUEST_NETWORK}`,
    config.kernelCommandLine,
  ]
    .join(" ")
    .trim();
}

/** Arguments for `qemu-system-ARCH`. Pure: the same input gives the same command line. */
export function qemuArguments(
  config: VmConfig,
  identity: HypervisorIdentity,
  memory: MemorySource,
  incoming: SnapshotFiles | undefined,
): string[] {
  const forwards = config.ports.map((port) => `,hostfwd=tcp:${port.hostAddress}:${port.hostPort}-:${port.guestPort}`);
  const args = [
    "-nodefaults -no-user-config -no-reboot -display none".split(" "),
    ["-name", `mvm ${value(basename(config.directory))}`],
    ["-M", `microvm,accel=${identity.accelerator},acpi=on,pit=off,pic=off,rtc=on,memory-backend=ram`],
    ["-cpu", identity.accelerator === "kvm" ? "host" : "max"],
    ["-smp", String(config.cpus), "-m", `${config.memMiB}M`],
    ["-object", memoryBackend(config.memMiB, memory)],
    ["-kernel", config.kernel],
    config.initrd ? ["-initrd", config.initrd] : [],
    ["-append", kernelCommandLine(config)],
    ["-chardev", `file,id=console,path=${CONSOLE_LOG},append=on`, "-serial", "chardev:console"],
    ["-drive", `id=root,if=none,format=raw,readonly=on,file.locking=off,file=${value(config.rootfs.path)}`],
    ["-device", "virtio-blk-device,drive=root"],
    config.dataDisk
      ? ["-drive", `id=data,if=none,format=raw,discard=unmap,file=${value(config.dataDisk)}`, "-device", "virtio-blk-device,drive=data"]
      : [],
    ["-device", "virtio-serial-device,max_ports=16"],
    ...Array.from({ length: AGENT_PORT_COUNT }, (_, index) => [
      "-chardev",
      `socket,id=agent${index},path=${agentSocket(index)},server=on,wait=off`,
      "-device",
      `virtserialport,chardev=agent${index},name=mvm.agent.${index}`,
    ]),
    ["-netdev", `user,id=net0${forwards.join("")}`, "-device", "virtio-net-device,netdev=net0"],
    ["-chardev", `socket,id=qmp,path=${QMP_SOCKET},server=on,wait=off`, "-mon", "chardev=qmp,mode=control"],
    incoming ? ["-global", "migration.x-ignore-shared=on", "-incoming", `fd:${VMSTATE_FD}`] : [],
  ];
  return args.flat();
}
