import * as v from "valibot";

/** What the agent answers: docs/agent-api.md. A guest can say anything, so every answer is checked. Unknown fields are ignored. */

export const AgentInfoSchema = v.object({
  agentVersion: v.string(),
  apiVersion: v.number(),
  hostname: v.string(),
  role: v.string(),
  machineId: v.string(),
  bootId: v.string(),
  kernel: v.string(),
  uptimeMs: v.number(),
  phase: v.picklist(["held", "running", "prepared", "stopping"]),
  generation: v.number(),
});
export type AgentInfo = v.InferOutput<typeof AgentInfoSchema>;

export const ServiceStatusSchema = v.object({
  state: v.picklist(["starting", "running", "backoff", "stopped", "failed"]),
  pid: v.nullish(v.number()),
  restarts: v.number(),
  lastExit: v.nullish(v.string()),
});

export const CheckStatusSchema = v.object({
  status: v.picklist(["pending", "passing", "failing"]),
  exitCode: v.nullish(v.number()),
  output: v.string(),
  runs: v.number(),
  consecutiveFailures: v.number(),
});

export const HealthSchema = v.object({
  status: v.picklist(["starting", "healthy", "unhealthy", "failed"]),
  generation: v.number(),
  services: v.record(v.string(), ServiceStatusSchema),
  checks: v.record(v.string(), CheckStatusSchema),
});
export type Health = v.InferOutput<typeof HealthSchema>;

export const WakeAnswerSchema = v.object({ generation: v.number() });
export const EmptySchema = v.object({});
export const AgentErrorSchema = v.object({ code: v.string(), message: v.string() });

/** Who a guest is from now on. */
export interface WakeRequest {
  readonly hostname: string;
  /** 32 lower-case hexadecimal digits. */
  readonly machineId: string;
  /** Base64 of random bytes for the guest's kernel. */
  readonly entropy: string;
  /** Nanoseconds since 1970 in decimal: more digits than a double holds. */
  readonly timeNs: string;
  readonly role: string;
  readonly env: Readonly<Record<string, string>>;
  readonly network?: { readonly mac: string };
  /** Directories of the guest, and the archives (in base64) that are unpacked there. */
  readonly volumes?: readonly { readonly path: string; readonly tar: string }[];
}
