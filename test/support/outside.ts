import assert from "node:assert/strict";
import { readlinkSync } from "node:fs";
import { run, spawnChecked } from "../../src/core/process.ts";
import { until } from "./wait.ts";

/** Its address, and this machine's on the cable. TEST-NET-2 (RFC 5737) is nobody's. */
export const OUTSIDE = "198.51.100.2";
export const HERE = "198.51.100.1";
/** Another address of it: where AWS ECS tells a machine its credentials. Without a filter, guests would reach it. */
export const METADATA = "169.254.170.2";
/** Where it says "the outside" to whoever connects. */
export const PORT = 8090;

/** A machine outside: a network namespace at the end of a cable. */
export interface Outside extends Disposable {
  run: (command: string, args: readonly string[]) => ReturnType<typeof run>;
}

/** Makes the machine outside, which says "the outside" to whoever connects to PORT. It ends with its processes. */
export async function startOutside(): Promise<Outside> {
  const holder = await spawnChecked("unshare", ["--net", "cat"], { stdio: ["pipe", "ignore", "inherit"] });
  const inside = ["--target", String(holder.pid), "--net", "--"];
  const own = readlinkSync("/proc/self/ns/net");
  await until("it has its namespace", () => readlinkSync(`/proc/${holder.pid}/ns/net`) !== own);
  const script = `set -e
    ip link add mvmtest0 type veth peer name eth0 netns ${holder.pid}
    ip address add ${HERE}/30 dev mvmtest0
    ip link set mvmtest0 up
    ip route add ${METADATA}/32 via ${OUTSIDE} dev mvmtest0
    nsenter ${inside.join(" ")} sh -c 'ip address add ${OUTSIDE}/30 dev eth0; ip address add ${METADATA}/32 dev eth0; ip link set eth0 up; ip link set lo up'`;
  const made = await run("sh", ["-c", script]);
  if (made.exitCode !== 0) holder.kill("SIGKILL");
  assert.equal(made.exitCode, 0, made.stderr);
  const listen = ["socat", `TCP-LISTEN:${PORT},fork,reuseaddr`, "SYSTEM:echo the outside"];
  const server = await spawnChecked("nsenter", [...inside, ...listen], { stdio: "ignore" });
  const runInside = (command: string, args: readonly string[]) => run("nsenter", [...inside, command, ...args]);
  await until("it listens", async () => (await runInside("ss", ["-Hltn", `sport = ${PORT}`])).stdout !== "");
  return {
    run: runInside,
    [Symbol.dispose]: () => {
      server.kill("SIGKILL");
      holder.kill("SIGKILL");
    },
  };
}
