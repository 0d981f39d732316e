import { basename } from "node:path";
import { CONSOLE_LOG, type HypervisorIdentity, type SnapshotFiles, type VmConfig } from "./driver.ts";

/**
 * The command line of a QEMU microVM. A snapshot loads only into a machine with the same devices, so boot and restore
 * share everything here except where the memory comes from. Change the devices, or how a restored guest's agent is spoken to, and
 * count up QEMU_LAYOUT: older snapshots no longer fit.
 */
export const QEMU_LAYOUT = 6;

/**
 * Agent ports: QEMU's socket chardev serves one client at a time, so a VM has several. Each takes 4 MiB of the guest: its kernel keeps
 * a page at hand for each of the 1,024 entries that a queue has behind virtio-mmio (VIRTQUEUE_MAX_SIZE in QEMU).
 */
export const MOST_AGENT_PORTS = 8;
export const LEAST_AGENT_PORTS = 4;
const SMALL_GUEST_MIB = 256;

function agentPorts(memMiB: number): number {
  return memMiB < SMALL_GUEST_MIB ? LEAST_AGENT_PORTS : MOST_AGENT_PORTS;
}

/** Names relative to the VM's directory, which is QEMU's working directory: socket paths have 108 bytes at most (unix(7)). */
export const QMP_SOCKET = "qmp.sock";
export const agentSocket = (index: number) => `agent${index}.sock`;

/** QEMU's user network gives every VM the same private addresses; see "-netdev user" in qemu(1). */
export const GUEST_NETWORK = "10.0.2.15/24,10.0.2.2,10.0.2.3";

/** File descriptor through which a restored VM reads its vmstate. */
export const VMSTATE_FD = 3;

/**
 * Everything that QEMU emulates, but for what only costs an emulated guest time: a fifth level of page tables, checks of
 * kernel accesses that each take instructions of their own, and the promise that copying byte by byte is fast ("erms"), which
 * makes each page that the kernel clears 4,096 steps.
 */
const EMULATED_CPU = "max,la57=off,smap=off,smep=off,pku=off,erms=off";

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

/**
 * QEMU's user network, or a tap in the VM's own. Guests see no difference, and a snapshot fits both: the tap brings no headers
 * for offloading, which the user network has not, and beside it a user network that nothing is attached to takes the state of the
 * one that the captured VM had.
 */
function networkBackend({ network, ports }: VmConfig): string[] {
  if (network) {
    const tap = `tap,id=net0,ifname=${network.tap},script=no,downscript=no,vnet_hdr=off`;
    return ["-netdev", tap, "-netdev", "user,id=unused,ipv6=off,restrict=on"];
  }
  const forwards = ports.map((port) => `,hostfwd=tcp:${port.hostAddress}:${port.hostPort}-:${port.guestPort}`);
  return ["-netdev", `user,id=net0,ipv6=off${forwards.join("")}`];
}

/** What the driver found out about this host. */
export interface QemuHost {
  readonly identity: HypervisorIdentity;
  /** The host's time stamp counter, kHz, which an emulated guest reads as its own. */
  readonly tscKHz: number;
}

/**
 * An emulated guest would measure its time stamp counter against an emulated timer, and on a busy host it fails and
 * hangs in every second boot; nor would it find the counters of two CPUs in step. So it is told. Mitigations, pressure stall
 * information and mandatory access control cost an emulated guest more than they are worth: a restored one has to translate their
 * code again. Programs can still confine themselves with Landlock; an image's own parameters come later, and win.
 */
function emulationParameters(config: VmConfig, { identity, tscKHz }: QemuHost): string {
  if (identity.accelerator !== "tcg") return "";
  const parameters = `tsc_early_khz=${tscKHz} tsc=reliable mitigations=off psi=0 lsm=landlock,yama`;
  // The kernel adds to this one what comes later, so that an image could not take it back.
  const ownBlacklist = config.kernelCommandLine?.includes("initcall_blacklist=");
  return ownBlacklist ? parameters : `${parameters} initcall_blacklist=${NO_TRACEFS}`;
}

/** Makes the 10,000 files of tracefs at boot (kernel/trace/trace.c): 8 MiB of every snapshot, and other bytes after each boot. */
const NO_TRACEFS = "tracer_init_tracefs";

export function kernelCommandLine(config: VmConfig, host: QemuHost): string {
  return [
    "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests",
    emulationParameters(config, host),
    `root=/dev/vda rootfstype=${config.rootfs.type} ro`,
    `mvm.hold=1 mvm.net=${GUEST_NETWORK}`,
    config.kernelCommandLine,
  ]
    .filter(Boolean)
    .join(" ");
}

/** A restored VM has its kernel in its memory: reading the file again would cost it a tenth of its start. */
function kernelArguments(config: VmConfig, host: QemuHost): string[] {
  const initrd = config.initrd ? ["-initrd", config.initrd] : [];
  return ["-kernel", config.kernel, ...initrd, "-append", kernelCommandLine(config, host)];
}

/** Arguments for `qemu-system-ARCH`. Pure: the same input gives the same command line. */
export function qemuArguments(
  config: VmConfig,
  host: QemuHost,
  memory: MemorySource,
  incoming: SnapshotFiles | undefined,
): string[] {
  const args = [
    "-nodefaults -no-user-config -no-reboot -display none".split(" "),
    ["-name", `mvm ${value(basename(config.directory))}`],
    ["-M", `microvm,accel=${host.identity.accelerator},acpi=on,rtc=on,memory-backend=ram`],
    ["-cpu", host.identity.accelerator === "kvm" ? "host" : EMULATED_CPU],
    ["-smp", String(config.cpus), "-m", `${config.memMiB}M`],
    ["-object", memoryBackend(config.memMiB, memory)],
    incoming ? [] : kernelArguments(config, host),
    ["-chardev", `file,id=console,path=${CONSOLE_LOG},append=on`, "-serial", "chardev:console"],
    ["-drive", `id=root,if=none,format=raw,readonly=on,file.locking=off,file=${value(config.rootfs.path)}`],
    ["-device", "virtio-blk-device,drive=root"],
    config.dataDisk
      ? [
          "-drive",
          `id=data,if=none,format=raw,discard=unmap,file=${value(config.dataDisk)}`,
          "-device",
          "virtio-blk-device,drive=data",
        ]
      : [],
    ["-device", "virtio-serial-device,max_ports=16"],
    ...Array.from({ length: agentPorts(config.memMiB) }, (_, index) => [
      "-chardev",
      `socket,id=agent${index},path=${agentSocket(index)},server=on,wait=off`,
      "-device",
      `virtserialport,chardev=agent${index},name=mvm.agent.${index}`,
    ]),
    networkBackend(config),
    // A restored guest would be told to announce itself, five times, by an address that it changes at once.
    ["-device", "virtio-net-device,netdev=net0,guest_announce=off"],
    ["-chardev", `socket,id=qmp,path=${QMP_SOCKET},server=on,wait=off`, "-mon", "chardev=qmp,mode=control"],
    // Deferred: QEMU must first be told that the memory is in its file already, and 7.2 takes that from QMP alone.
    incoming ? ["-incoming", "defer"] : [],
  ];
  return args.flat();
}
