import type { Command } from "commander";
import { formatMs } from "../core/sizes.ts";
import type { RunOutcome, RunRequest } from "../instance/run-request.ts";
import { UsageError } from "./errors.ts";
import { type Options, textOption } from "./page.ts";
import { parseSeconds } from "./seconds.ts";

/** A cold boot under emulation takes seconds; a service may take longer to become healthy. */
const DEFAULT_TIMEOUT_SECONDS = "180";

/** The options of commands that start instances: what to wait for, and for how long. */
export function defineWaiting(command: Command): Command {
  return command
    .option(
      "--wait <moment>",
      "return when `running` (the agent answered) or `healthy` (every check passed; the default)",
    )
    .option("--timeout <seconds>", `to become healthy (default ${DEFAULT_TIMEOUT_SECONDS})`);
}

/** @throws UsageError */
export function parseWaiting(options: Options): Pick<RunRequest, "waitFor" | "timeoutMs"> {
  const waitFor = textOption(options, "wait") ?? "healthy";
  if (waitFor !== "running" && waitFor !== "healthy")
    throw new UsageError(`--wait '${waitFor}' is not known`, "choose running or healthy");
  return { waitFor, timeoutMs: parseSeconds("--timeout", textOption(options, "timeout") ?? DEFAULT_TIMEOUT_SECONDS) };
}

/** How an instance started, and where it is reached. */
export function describeStart({
  name,
  start,
  coldBootReason,
  runningMs,
  healthyMs,
  ports,
  hypervisor,
}: RunOutcome): string {
  const how = start === "restored" ? "restored from a snapshot" : `booted (${coldBootReason})`;
  const healthy = healthyMs === undefined ? "" : `, healthy after ${formatMs(healthyMs)}`;
  const forwards = ports
    .map(({ hostAddress, hostPort, guestPort }) => `  ${hostAddress}:${hostPort} reaches port ${guestPort}\n`)
    .join("");
  return `${name}: ${how} on ${hypervisor.name} (${hypervisor.accelerator}); running after ${formatMs(runningMs)}${healthy}\n${forwards}`;
}
