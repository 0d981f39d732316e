import assert from "node:assert/strict";
import type { NetworkInterfaceInfo } from "node:os";
import { test } from "node:test";
import {
  namespaceError,
  namespaceScript,
  planFilter,
  slirpArguments,
  tunError,
  unshareArguments,
} from "./network-plan.ts";

const HOST: NodeJS.Dict<NetworkInterfaceInfo[]> = {
  lo: [address("127.0.0.1", true)],
  eth0: [address("192.0.2.2"), { ...address("fd00::2"), family: "IPv6", scopeid: 0 }],
  docker0: [address("172.17.0.1"), address("10.0.2.15")],
};

function address(ip: string, internal = false): NetworkInterfaceInfo {
  return { address: ip, netmask: "255.255.255.0", family: "IPv4", mac: "", internal, cidr: null };
}

test("metadata services and the host's addresses are blocked, but for the addresses that the network has itself", () => {
  const { blocked, allowed, hostLoopback } = planFilter([], HOST);
  for (const network of ["169.254.0.0/16", "168.63.129.16/32", "192.0.2.2/32", "172.17.0.1/32"])
    assert.ok(blocked.includes(network), network);
  assert.ok(!blocked.some((network) => /^127|^10\.0\.2|:/.test(network)), blocked.join());
  assert.deepEqual({ allowed, hostLoopback }, { allowed: [], hostLoopback: false });
});

test("what is allowed is routed, also out of a blocked network; the gateway stands for the host's loopback", () => {
  const filter = planFilter(["169.254.169.254", "192.0.2.2", "10.0.2.2"], HOST);
  assert.deepEqual(filter.allowed, ["169.254.169.254/32", "192.0.2.2/32"]);
  assert.ok(filter.blocked.includes("169.254.0.0/16"));
  assert.ok(!filter.blocked.includes("192.0.2.2/32"));
  const script = namespaceScript(filter);
  assert.match(script, /^route add prohibit 169\.254\.0\.0\/16$/m);
  assert.match(script, /^route replace 169\.254\.169\.254\/32 via 10\.0\.2\.2 dev uplink$/m);
  assert.ok(!slirpArguments(1, "s", filter).includes("--disable-host-loopback"));
  assert.ok(slirpArguments(1, "s", planFilter([], HOST)).includes("--disable-host-loopback"));
});

test("nothing but addresses and networks gets into the script", () => {
  for (const text of [
    "",
    "example.org",
    "1.2.3",
    "1.2.3.256",
    "1.2.3.4/33",
    "1.2.3.4/",
    "::1",
    "1.2.3.4\nEOF",
    "1.2.3.4 dev lo",
  ])
    assert.throws(() => planFilter([text], HOST), { code: "INVALID_NETWORK" }, text);
});

test("root makes the namespace as root, others in a user namespace", () => {
  assert.equal(unshareArguments(0, "x").join(" "), "--net -- sh -c x");
  assert.equal(unshareArguments(1000, "x").join(" "), "--user --map-root-user --net -- sh -c x");
});

test("what keeps a namespace or a tap from being made is said with the command that mends it", () => {
  // What util-linux 2.38 and iproute2 6.1 print.
  for (const [stderr, code, hint] of [
    ["unshare: unshare failed: Operation not permitted", "NETWORK_FAILED", /unprivileged_userns_clone/],
    ["unshare: unshare failed: No space left on device", "NETWORK_FAILED", /max_user_namespaces/],
    ["open: No such file or directory", "TAP_FAILED", /modprobe tun/],
    ["ioctl(TUNSETIFF): Operation not permitted", "TAP_FAILED", /NET_ADMIN/],
    ["sh: 1: cannot create /proc/sys/net/ipv4/ip_forward: Read-only file system", "NETWORK_FAILED", /read-only/],
    ["", "NETWORK_FAILED", /doctor/],
  ] as const) {
    const error = namespaceError(stderr);
    assert.equal(error.code, code, stderr);
    assert.match(error.hint ?? "", hint);
  }
  assert.match(tunError(Object.assign(new Error(), { code: "ENOENT" })).hint ?? "", /modprobe tun/);
  assert.match(tunError(Object.assign(new Error(), { code: "EACCES" })).hint ?? "", /chmod 0666/);
});
