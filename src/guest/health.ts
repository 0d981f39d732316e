import { MvmError } from "../core/errors.ts";
import { lastLines } from "../core/text.ts";
import type { AgentClient } from "./agent-client.ts";
import type { Health } from "./agent-types.ts";

/** One long-poll: short enough that a VM that died is noticed, long enough to cost nothing. */
const POLL_MS = 2000;

export interface HealthWait {
  /** A time of Date.now(). */
  readonly deadlineMs: number;
  readonly signal?: AbortSignal;
  /** Called with what is still missing, whenever that is asked. */
  readonly onProgress?: (missing: string) => void;
}

/**
 * Waits until every service runs and every health check has passed.
 * @throws MvmError `GUEST_UNHEALTHY`, naming the service or check that failed, with its output
 */
export async function waitHealthy(client: AgentClient, wait: HealthWait): Promise<void> {
  for (;;) {
    const left = wait.deadlineMs - Date.now();
    const health = await client.health(Math.max(0, Math.min(POLL_MS, left)), wait.signal);
    if (health.status === "healthy") return;
    if (health.status === "failed") throw unhealthy(health, "a service can't be kept running");
    if (left <= 0) throw unhealthy(health, "it did not become healthy in time");
    wait.onProgress?.(describeMissing(health));
  }
}

/** `check 'http' failing, service 'web' starting`. */
export function describeMissing(health: Health): string {
  const services = Object.entries(health.services)
    .filter(([, service]) => service.state !== "running")
    .map(([name, service]) => `service '${name}' ${service.state}`);
  const checks = Object.entries(health.checks)
    .filter(([, check]) => check.status !== "passing")
    .map(([name, check]) => `check '${name}' ${check.runs === 0 ? "not run yet" : check.status}`);
  return [...services, ...checks].join(", ") || health.status;
}

function unhealthy(health: Health, why: string): MvmError {
  const evidence = [
    ...Object.entries(health.services)
      // One that crashes again and again may run at this moment, and is why its check fails.
      .filter(([, service]) => service.state !== "running" || service.restarts > 0)
      .map(
        ([name, service]) =>
          `service '${name}': ${service.state}, ${service.restarts} restarts, last exit: ${service.lastExit ?? "none"}`,
      ),
    ...Object.entries(health.checks)
      .filter(([, check]) => check.status !== "passing")
      .map(
        ([name, check]) =>
          `check '${name}': exit code ${check.exitCode ?? "none"} after ${check.runs} runs${outputOf(check.output)}`,
      ),
  ];
  return new MvmError("GUEST_UNHEALTHY", `the guest is not healthy: ${why} (${describeMissing(health)})`, {
    detail: evidence.join("\n"),
    // A start that failed leaves no instance: this is how one stays that can be looked into.
    hint: "give it longer with --timeout, or look into it: `mvmctl run … --wait running` leaves it there for `mvmctl exec` and `mvmctl logs`",
  });
}

function outputOf(output: string): string {
  const last = lastLines(output, 8);
  return last === "" ? ", no output" : `, it printed:\n  ${last.replaceAll("\n", "\n  ")}`;
}
