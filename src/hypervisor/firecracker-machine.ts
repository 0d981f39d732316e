import type { VmConfig } from "./driver.ts";
import type { FirecrackerApi, SnapshotLoad } from "./firecracker-api.ts";
import { type Bind, INSIDE } from "./firecracker-namespace.ts";

/**
 * The devices of a Firecracker VM. A snapshot loads only into a machine with the same ones: change them, and count up
 * FIRECRACKER_LAYOUT.
 */
export const FIRECRACKER_LAYOUT = 1;

/** Each VM has a vsock of its own, so all can have the first free address (0 to 2 mean others; vsock(7)). */
const GUEST_CID = 3;
const INTERFACE = "eth0";

/** What of the host a VM sees besides its own directory. */
export function bindsOf(config: VmConfig): Bind[] {
  const shared = (from: string | undefined, at: string): Bind[] => (from ? [{ from, at, writable: false }] : []);
  return [
    ...shared(config.rootfs.path, INSIDE.rootfs),
    ...(config.dataDisk ? [{ from: config.dataDisk, at: INSIDE.dataDisk, writable: true }] : []),
  ];
}

/** What a boot needs more; a restored VM has both in its memory. */
export function kernelBinds(config: VmConfig): Bind[] {
  const kernel = { from: config.kernel, at: INSIDE.kernel, writable: false };
  return config.initrd ? [kernel, { from: config.initrd, at: INSIDE.initrd, writable: false }] : [kernel];
}

/**
 * `reboot=k` makes a guest's reboot a reset by the keyboard controller, which ends Firecracker; our agent then reboots
 * instead of powering off. The i8042 parameters spare the search for a mouse and a keyboard.
 */
export function firecrackerCommandLine(config: VmConfig): string {
  return [
    "console=ttyS0 quiet panic=-1 reboot=k cryptomgr.notests i8042.noaux i8042.nomux i8042.dumbkbd",
    `root=/dev/vda rootfstype=${config.rootfs.type} ro`,
    "mvm.hold=1",
    config.network ? `mvm.net=${config.network.guestAddress}` : "",
    config.kernelCommandLine,
  ]
    .filter(Boolean)
    .join(" ");
}

/** Tells a fresh Firecracker what machine to be. */
export async function describeMachine(api: FirecrackerApi, config: VmConfig): Promise<void> {
  await api.putMachineConfig({ vcpu_count: config.cpus, mem_size_mib: config.memMiB });
  await api.putBootSource({
    kernel_image_path: INSIDE.kernel,
    ...(config.initrd ? { initrd_path: INSIDE.initrd } : {}),
    boot_args: firecrackerCommandLine(config),
  });
  // With a root device Firecracker would add `root=/dev/vda` of its own to what we say.
  const drive = { is_root_device: false } as const;
  await api.putDrive({
    ...drive,
    drive_id: "root",
    path_on_host: INSIDE.rootfs,
    is_read_only: true,
    cache_type: "Unsafe",
  });
  if (config.dataDisk) {
    await api.putDrive({
      ...drive,
      drive_id: "data",
      path_on_host: INSIDE.dataDisk,
      is_read_only: false,
      cache_type: "Writeback",
    });
  }
  if (config.network) {
    const { tap, guestMac } = config.network;
    await api.putNetworkInterface({ iface_id: INTERFACE, host_dev_name: tap, guest_mac: guestMac });
  }
  await api.putVsock({ guest_cid: GUEST_CID, uds_path: INSIDE.vsock });
  await api.putEntropy();
}

/** Loads a snapshot, and lets it run. */
export function snapshotToLoad(config: VmConfig): SnapshotLoad {
  const { network } = config;
  return {
    snapshot_path: INSIDE.vmstate,
    mem_backend: { backend_type: "File", backend_path: INSIDE.memory },
    resume_vm: true,
    ...(network ? { network_overrides: [{ iface_id: INTERFACE, host_dev_name: network.tap }] } : {}),
    // Ours names this path anyway; what somebody else captured is reached where we look, too.
    vsock_override: { uds_path: INSIDE.vsock },
  };
}
