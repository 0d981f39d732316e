import { basename } from "node:path";
import { jailerCommand, type PreparedJail } from "./firecracker-jail.ts";

/**
 * Firecracker always runs in a mount namespace of its own, whose root holds nothing but the files of its VM, at the same
 * paths for every VM. A snapshot's state names the paths of disks and sockets: so clones do not clash, a snapshot fits
 * wherever it is brought, and one from a stranger reaches no file of this host. docs/decisions/0007.
 */
export const INSIDE = {
  api: "/run/api.sock",
  vsock: "/run/v.sock",
  /** Where a capture writes the state: made by Firecracker, and so in a directory that it may write. */
  newVmstate: "/run/vmstate.bin",
  log: "/hypervisor.log",
  kernel: "/vm/kernel",
  initrd: "/vm/initrd",
  rootfs: "/vm/rootfs",
  dataDisk: "/vm/data",
  vmstate: "/vm/vmstate",
  memory: "/vm/memory",
} as const;

/** A file, directory or device of the host that is seen inside. */
export interface Bind {
  readonly from: string;
  readonly at: string;
  readonly writable: boolean;
}

export interface Confinement {
  /** An empty directory: on it, seen by the VM's processes alone, the new root is made. */
  readonly mountPoint: string;
  readonly binds: readonly Bind[];
  /** Firecracker's binary, which must be a static one: there are no libraries inside. */
  readonly binary: string;
  readonly args: readonly string[];
  readonly opensTap: boolean;
  /** For users other than root: a user namespace, in which they are. */
  readonly unprivileged: boolean;
  /** Runs it through Firecracker's jailer. */
  readonly jail?: PreparedJail | undefined;
}

/** Makes the root (`mount -n` leaves the host's /run/mount alone): `MOUNTPOINT SUBDIRECTORY [rw|ro FROM AT]... -- COMMAND...`. Nothing is quoted, so no path can mean anything else. */
const MAKE_ROOT = `set -eu
root=$1$2
mount -n -t tmpfs -o mode=755,size=64m mvm "$1"
mkdir -p "$root"
shift 2
while [ "$1" != -- ]; do
  to=$root$3
  mkdir -p "\${to%/*}"
  if [ -d "$2" ]; then mkdir -p "$to"; else : > "$to"; fi
  mount -n --bind "$2" "$to"
  if [ "$1" = ro ]; then mount -n -o remount,bind,ro "$to"; fi
  shift 3
done
shift
`;

/**
 * The new root goes on top of the old one, as an initramfs does it: below it there is no way back, even for root. And what
 * runs there has no power but to open a tap: a guest that broke out is root of nothing.
 */
const ENTER = `capabilities=$1
shift
cd "$root"
mount -n --move . /
exec setpriv --bounding-set="$capabilities" --inh-caps=-all --no-new-privs -- chroot . "$@"
`;

/** The jailer moves in itself. The shell stays, as process 1 of a process namespace: whoever ends it ends all in there. */
const WAIT = `"$@" &
wait $!
`;

const BINARY = "/firecracker";

/** What stays: `sys_chroot` for the last step, `net_admin` for a tap that no user was given (TUNSETIFF in tun.c). */
function capabilities({ opensTap }: Confinement): string {
  return opensTap ? "-all,+sys_chroot,+net_admin" : "-all,+sys_chroot";
}

/** The command line that runs Firecracker confined. Pure: the same input gives the same command line. */
export function confinedCommand(confinement: Confinement): string[] {
  const { mountPoint, binary, args, unprivileged, jail } = confinement;
  const subdirectory = jail ? `/${basename(binary)}/${jail.id}/root` : "";
  const binds = jail ? confinement.binds : [...confinement.binds, { from: binary, at: BINARY, writable: false }];
  return [
    "unshare",
    ...(unprivileged ? ["--user", "--map-root-user"] : []),
    "--mount",
    ...(jail ? ["--pid", "--fork", "--kill-child=KILL"] : []),
    "--",
    "sh",
    "-c",
    MAKE_ROOT + (jail ? WAIT : ENTER),
    "mvm-confine",
    mountPoint,
    subdirectory,
    ...binds.flatMap(({ from, at, writable }) => [writable ? "rw" : "ro", from, at]),
    "--",
    ...(jail ? jailerCommand(jail, binary, mountPoint) : [capabilities(confinement), BINARY]),
    ...args,
  ];
}
