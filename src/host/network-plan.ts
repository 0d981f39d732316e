import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";
import { isErrno, MvmError } from "../core/errors.ts";

/**
 * The network of a VM that has a tap. Each VM has a network namespace with the same names and addresses in it, those of
 * QEMU's user network, so that an image and a snapshot fit both:
 *
 *   guest 10.0.2.15 — tap mvm0 — [routes, proxy ARP] — tap uplink — slirp4netns — the host's sockets
 *
 * slirp4netns does the address translation with ordinary sockets, so nothing here needs a privilege on the host.
 */
export const TAP = "mvm0";
export const GUEST_ADDRESS = "10.0.2.15";
export const GATEWAY = "10.0.2.2";
export const NAME_SERVER = "10.0.2.3";
export const PREFIX = 24;
/** What a guest has until it is woken and gets one of its own. The first one that QEMU gives, too. */
export const GUEST_MAC = "52:54:00:12:34:56";

const UPLINK = "uplink";
const UPLINK_ADDRESS = "10.0.2.100";

/**
 * Where clouds tell a machine its credentials: link-local addresses (AWS, Google, Azure, OpenStack: 169.254.169.254; AWS
 * ECS: 169.254.170.2), Azure's 168.63.129.16, Alibaba's 100.100.100.200, Oracle's 192.0.0.192. AWS's fd00:ec2::254 needs no
 * entry: IPv6 does not leave the namespace.
 */
const METADATA = ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"];

/** What the namespace itself or slirp4netns answers: a host that has such an address too is blocked by them. */
const OWN_ADDRESSES = new Set([GUEST_ADDRESS, GATEWAY, NAME_SERVER, UPLINK_ADDRESS]);

export interface Filter {
  /** Networks that a guest cannot reach: `192.0.2.2/32`. */
  readonly blocked: readonly string[];
  /** Networks that it can, whatever a wider entry of `blocked` says. */
  readonly allowed: readonly string[];
  /** Whether the gateway's address is the host's loopback. */
  readonly hostLoopback: boolean;
}

/**
 * What is blocked: metadata services and the host's addresses, without those that `allow` names. `allow` takes IPv4 addresses
 * and networks; 10.0.2.2, the gateway, stands for the host's loopback.
 * @throws MvmError `INVALID_NETWORK`
 */
export function planFilter(
  allow: readonly string[],
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
): Filter {
  const allowed = allow.filter((address) => address !== GATEWAY).map(parseNetwork);
  const host = Object.values(interfaces)
    .flatMap((addresses) => addresses ?? [])
    .filter(({ family, internal, address }) => family === "IPv4" && !internal && !OWN_ADDRESSES.has(address))
    .map(({ address }) => `${address}/32`);
  const blocked = [...new Set([...METADATA, ...host])].filter((network) => !allowed.includes(network));
  return { blocked, allowed, hostLoopback: allow.includes(GATEWAY) };
}

function parseNetwork(text: string): string {
  const match = /^(\d{1,3}(?:\.\d{1,3}){3})(?:\/(\d{1,2}))?$/.exec(text);
  const octets = match?.[1]?.split(".").map(Number) ?? [];
  const prefix = Number(match?.[2] ?? 32);
  if (match && octets.every((octet) => octet <= 255) && prefix <= 32) return `${match[1]}/${prefix}`;
  throw new MvmError("INVALID_NETWORK", `'${text.slice(0, 60)}' is no IPv4 address or network`, {
    hint: "write 192.0.2.7 or 192.0.2.0/24",
  });
}

/** Said by the namespace's first process once everything but slirp4netns is there. */
export const READY = "ready";

/**
 * What the namespace's first process does (sh): it makes both taps, says so, and then keeps the namespace as long as its
 * standard input is open. Proxy ARP joins the two sides, so the guest believes to sit beside slirp4netns.
 */
export function namespaceScript({ blocked, allowed }: Filter): string {
  const conf = "/proc/sys/net/ipv4/conf";
  return `set -e
ip -batch - <<'EOF'
tuntap add dev ${TAP} mode tap
tuntap add dev ${UPLINK} mode tap
link set ${TAP} up
link set ${UPLINK} up
address add ${UPLINK_ADDRESS}/${PREFIX} dev ${UPLINK}
route add ${GUEST_ADDRESS}/32 dev ${TAP}
route add default via ${GATEWAY} dev ${UPLINK}
${blocked.map((network) => `route add prohibit ${network}\n`).join("")}${allowed.map((network) => `route replace ${network} via ${GATEWAY} dev ${UPLINK}\n`).join("")}EOF
if [ -e /proc/sys/net/ipv6 ]; then echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; fi
echo 0 >${conf}/all/accept_source_route
echo 1 >${conf}/${TAP}/rp_filter
for tap in ${TAP} ${UPLINK}; do
  echo 1 >${conf}/$tap/proxy_arp
  echo 0 >/proc/sys/net/ipv4/neigh/$tap/proxy_delay
done
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ${READY}
exec cat >/dev/null 2>&1
`;
}

/** Root of the machine makes the namespace as it is; everybody else as root of a user namespace of their own. */
export function unshareArguments(uid: number, script: string): string[] {
  return [...(uid === 0 ? [] : ["--user", "--map-root-user"]), "--net", "--", "sh", "-c", script];
}

/** Put before a hypervisor's command, it starts in the namespace of process `pid`; it replaces itself, and keeps its pid. */
export function enterPrefix(uid: number, pid: number): string[] {
  return [
    "nsenter",
    "--target",
    String(pid),
    ...(uid === 0 ? [] : ["--user", "--preserve-credentials"]),
    "--net",
    "--",
  ];
}

/** For file descriptors see startNetwork: 3 ends slirp4netns when it is closed, on 4 it says that it is ready. */
export function slirpArguments(pid: number, apiSocket: string, { hostLoopback }: Filter): string[] {
  return [
    ...["--enable-sandbox", "--enable-seccomp", "--exit-fd=3", "--ready-fd=4", `--api-socket=${apiSocket}`],
    ...(hostLoopback ? [] : ["--disable-host-loopback"]),
    ...[String(pid), UPLINK],
  ];
}

const TUN = "/dev/net/tun";

/** Why /dev/net/tun could not be opened, with the command that mends it. */
export function tunError(cause: unknown): MvmError {
  const [why, hint] = isErrno(cause, "EACCES", "EPERM")
    ? [`you may not use ${TUN}`, `sudo chmod 0666 ${TUN} (as udev does; making a tap needs more than that file)`]
    : isErrno(cause, "ENOENT", "ENODEV", "ENXIO")
      ? [`there is no ${TUN}`, "sudo modprobe tun; in a container start it with --device /dev/net/tun"]
      : [`${TUN} does not open`, "sudo modprobe tun"];
  return new MvmError("TAP_FAILED", `can't make a tap for the VM's network: ${why}`, { hint, cause });
}

/** Why the namespace could not be made, from what the programs said. */
export function namespaceError(stderr: string): MvmError {
  const message = "can't make the VM's network namespace";
  const options = { detail: stderr.trim() || "the programs that make it left no message" };
  if (/^unshare: /m.test(stderr)) {
    const hint = /No space left/.test(stderr)
      ? "sudo sysctl user.max_user_namespaces=10000 user.max_net_namespaces=10000"
      : "allow user namespaces (Debian: sudo sysctl kernel.unprivileged_userns_clone=1; Ubuntu: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0), or run as root";
    return new MvmError("NETWORK_FAILED", message, { ...options, hint });
  }
  if (/TUNSETIFF|^open: /m.test(stderr)) {
    const hint = "sudo modprobe tun; a container needs --cap-add NET_ADMIN --device /dev/net/tun";
    return new MvmError("TAP_FAILED", "can't make a tap for the VM's network", { ...options, hint });
  }
  const hint = /Read-only file system/.test(stderr)
    ? "/proc/sys is read-only here: a container needs --security-opt systempaths=unconfined"
    : "run `mvmctl doctor`";
  return new MvmError("NETWORK_FAILED", message, { ...options, hint });
}
