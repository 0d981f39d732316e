import { randomBytes } from "../core/random.ts";
import type { WakeRequest } from "./agent-types.ts";

/** The kernel's pool holds 256 bits; twice that leaves no doubt (random(4)). */
const ENTROPY_BYTES = 64;

/** Nanoseconds since 1970, to the millisecond: the way to the guest takes longer. */
function nowNs(): string {
  return `${Date.now()}000000`;
}

/** A locally administered unicast MAC of QEMU's well-known prefix, the rest random. */
function randomMac(): string {
  return ["52", "54", "00", ...randomBytes(3).toString("hex").match(/../g)!].join(":");
}

/** A new identity for a guest that just booted or was restored: nothing in it repeats. */
export function newIdentity(name: string, role: string, env: Readonly<Record<string, string>>): WakeRequest {
  return {
    hostname: hostName(name),
    machineId: randomBytes(16).toString("hex"),
    entropy: randomBytes(ENTROPY_BYTES).toString("base64"),
    timeNs: nowNs(),
    role,
    env,
    network: { mac: randomMac() },
  };
}

/** Instance names may hold dots and underscores; RFC 1123 host names have neither (a dot would begin a domain). */
export function hostName(name: string): string {
  return name.replace(/[^a-z0-9-]+/g, "-").replace(/-+$/, "");
}
