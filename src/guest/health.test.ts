import assert from "node:assert/strict";
import { test } from "node:test";
import type { AgentClient } from "./agent-client.ts";
import type { Health } from "./agent-types.ts";
import { describeMissing, waitHealthy } from "./health.ts";

const service = (state: Health["services"][string]["state"], other = {}) => ({ state, restarts: 0, ...other });
const check = (status: Health["checks"][string]["status"], other = {}) => ({
  status,
  exitCode: 0,
  output: "",
  runs: 1,
  consecutiveFailures: 0,
  ...other,
});
const health = (status: Health["status"], other: Partial<Health> = {}): Health => ({
  status,
  generation: 1,
  services: {},
  checks: {},
  ...other,
});

/** An agent that says these one after the other, and the last one again and again. */
function agentSaying(...answers: Health[]): AgentClient {
  const left = [...answers];
  return { health: async () => (left.length > 1 ? left.shift()! : left[0]!) } as unknown as AgentClient;
}

test("what is missing is told by name", () => {
  const missing = health("starting", {
    services: { web: service("starting"), db: service("running"), mail: service("backoff") },
    checks: { http: check("failing"), disk: check("passing"), query: check("pending", { runs: 0 }) },
  });
  assert.equal(
    describeMissing(missing),
    "service 'web' starting, service 'mail' backoff, check 'http' failing, check 'query' not run yet",
  );
  assert.equal(describeMissing(health("unhealthy")), "unhealthy");
});

test("a healthy guest is not waited for; a starting one is, with what is missing", async () => {
  const told: string[] = [];
  const starting = health("starting", { checks: { http: check("failing") } });
  const agent = agentSaying(starting, starting, health("healthy"));
  await waitHealthy(agent, { deadlineMs: Date.now() + 60_000, onProgress: (missing) => told.push(missing) });
  assert.deepEqual(told, ["check 'http' failing", "check 'http' failing"]);
});

test("a service that can't be kept running fails at once, with how it ended", async () => {
  const failed = health("failed", { services: { web: service("failed", { restarts: 10, lastExit: "code 1" }) } });
  await assert.rejects(waitHealthy(agentSaying(failed), { deadlineMs: Date.now() + 60_000 }), {
    code: "GUEST_UNHEALTHY",
    message: /a service can't be kept running \(service 'web' failed\)/,
    detail: "service 'web': failed, 10 restarts, last exit: code 1",
  });
});

test("past the deadline a service that crashes again and again is named, though it runs at that moment", async () => {
  const flapping = health("starting", {
    services: { web: service("running", { restarts: 5, lastExit: "code 4" }), db: service("running") },
    checks: { http: check("failing", { exitCode: 1 }) },
  });
  await assert.rejects(waitHealthy(agentSaying(flapping), { deadlineMs: Date.now() - 1 }), {
    detail: "service 'web': running, 5 restarts, last exit: code 4\ncheck 'http': exit code 1 after 1 runs, no output",
  });
});

test("past the deadline the check that failed is named, with what it printed", async () => {
  const failing = health("starting", {
    checks: {
      http: check("failing", { exitCode: 1, runs: 7, output: "\x1b[31mconnection\x1b[0m refused\n" }),
      query: check("failing", { exitCode: null, runs: 2 }),
    },
  });
  await assert.rejects(waitHealthy(agentSaying(failing), { deadlineMs: Date.now() - 1 }), {
    code: "GUEST_UNHEALTHY",
    message: /did not become healthy in time \(check 'http' failing, check 'query' failing\)/,
    detail:
      "check 'http': exit code 1 after 7 runs, it printed:\n  connection refused\ncheck 'query': exit code none after 2 runs, no output",
  });
});
