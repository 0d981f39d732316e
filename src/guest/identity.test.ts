import assert from "node:assert/strict";
import { test } from "node:test";
import { hostName, newIdentity } from "./identity.ts";

test("no two guests are told the same identity", () => {
  const identities = Array.from({ length: 50 }, () => newIdentity("web", "worker", {}));
  for (const part of ["machineId", "entropy"] as const)
    assert.equal(new Set(identities.map((identity) => identity[part])).size, 50);
  assert.equal(new Set(identities.map(({ network }) => network?.mac)).size, 50);
});

test("an identity has the form that guests understand", () => {
  const { machineId, entropy, network, role, env, hostname } = newIdentity("web", "gateway", { K: "V" });
  assert.match(machineId, /^[0-9a-f]{32}$/); // machine-id(5)
  assert.equal(Buffer.from(entropy, "base64").length, 64);
  assert.match(network?.mac ?? "", /^52:54:00(:[0-9a-f]{2}){3}$/);
  assert.deepEqual({ hostname, role, env }, { hostname: "web", role: "gateway", env: { K: "V" } });
});

test("the time is now, in nanoseconds with all their digits", () => {
  const before = BigInt(Date.now()) * 1_000_000n;
  const timeNs = BigInt(newIdentity("web", "worker", {}).timeNs);
  const difference = timeNs > before ? timeNs - before : before - timeNs;
  assert.ok(difference < 1_000_000_000n, `${difference} ns apart`);
});

test("an instance's name becomes a host name that RFC 1123 allows", () => {
  const names = {
    web: "web",
    "web-1": "web-1",
    "my.service_2": "my-service-2",
    "a._.b": "a-b",
    "web-": "web",
    "web...": "web",
  };
  for (const [name, expected] of Object.entries(names)) assert.equal(hostName(name), expected);
});
