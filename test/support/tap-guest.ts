import { join } from "node:path";
import { type RunResult, run, spawnChecked } from "../../src/core/process.ts";
import { identify, signalProcess } from "../../src/core/process-identity.ts";
import type { StartedNetwork } from "../../src/host/network.ts";
import { GATEWAY, GUEST_ADDRESS } from "../../src/host/network-plan.ts";
import { until } from "./wait.ts";

/**
 * A stand-in for a hypervisor and its guest: socat holds the tap and hands each frame to a network namespace, which has
 * the guest's address and a TCP stack of its own. What a guest does on the network is what programs do in there.
 */
export interface TapGuest extends Disposable {
  /** Runs a program "in the guest". */
  run(command: string, args: readonly string[]): Promise<RunResult>;
  /** Serves `text` to whoever connects to a TCP port of the guest. */
  serve(port: number, text: string): Promise<void>;
  /** The process that holds the tap and the network's lifeline. */
  readonly hypervisor: number;
}

export async function startTapGuest(
  network: StartedNetwork,
  directory: string,
  env: NodeJS.ProcessEnv,
): Promise<TapGuest> {
  const wire = join(directory, "wire");
  const pids: number[] = [];
  const start = async (command: readonly string[], stdin: number | "ignore" = "ignore") => {
    const [program, ...args] = command;
    const child = await spawnChecked(program!, args, { env, stdio: [stdin, "ignore", "ignore"] });
    pids.push(child.pid!);
    return child.pid!;
  };
  const tap = `TUN,tun-name=${network.tap},tun-type=tap,iff-no-pi,iff-up`;
  const hypervisor = await start([...network.prefix, "socat", tap, `UNIX-LISTEN:${wire},type=5`], network.lifeline);
  const card = `TUN:${GUEST_ADDRESS}/24,tun-name=eth0,tun-type=tap,iff-no-pi,iff-up`;
  const guest = await start(["unshare", "--net", "socat", `UNIX-CONNECT:${wire},type=5,retry=500,interval=0.02`, card]);
  const inGuest = ["--target", String(guest), "--net", "--"];
  const runInGuest = (command: string, args: readonly string[]) =>
    run("nsenter", [...inGuest, command, ...args], { timeoutMs: 20_000 });
  await until("the guest has its network card", async () => {
    const route = await runInGuest("ip", ["route", "add", "default", "via", GATEWAY]);
    return route.exitCode === 0;
  });
  return {
    hypervisor,
    run: runInGuest,
    serve: async (port, text) => {
      await start(["nsenter", ...inGuest, "socat", `TCP-LISTEN:${port},fork,reuseaddr`, `SYSTEM:echo ${text}`]);
      await until("it listens", async () => (await runInGuest("ss", ["-Hltn", `sport = ${port}`])).stdout !== "");
    },
    [Symbol.dispose]: () => {
      for (const pid of pids) {
        const identity = identify(pid);
        if (identity) signalProcess(identity, "SIGKILL");
      }
    },
  };
}
