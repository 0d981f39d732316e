import * as v from "valibot";
import type { DocumentKind } from "../core/documents.ts";
import { ProcessIdentitySchema } from "../core/process-identity.ts";
import { HypervisorIdentitySchema } from "../hypervisor/driver.ts";

const PortForwardSchema = v.strictObject({ hostAddress: v.string(), hostPort: v.number(), guestPort: v.number() });

/** instance.json: what was started, and what is needed to find, use and end it. */
export const InstanceRecordSchema = v.strictObject({
  version: v.literal(1),
  name: v.string(),
  template: v.string(),
  revision: v.string(),
  hypervisor: HypervisorIdentitySchema,
  /** `starting` until the agent answered; a `starting` whose starter is dead was never finished. */
  state: v.picklist(["starting", "running", "paused", "stopped"]),
  /** The mvmctl process that starts it. */
  starter: ProcessIdentitySchema,
  /** The hypervisor's process, once there is one. */
  process: v.optional(ProcessIdentitySchema),
  start: v.picklist(["restored", "booted"]),
  /** Why it was booted although a restore would have been faster. */
  coldBootReason: v.optional(v.string()),
  cpus: v.number(),
  memMiB: v.number(),
  dataDiskMiB: v.number(),
  ports: v.array(PortForwardSchema),
  /** It has a network of its own. */
  isolated: v.optional(v.boolean()),
  /** RFC 3339, UTC. */
  createdAt: v.string(),
});
export type InstanceRecord = v.InferOutput<typeof InstanceRecordSchema>;
export const InstanceRecordDocument: DocumentKind<InstanceRecord> = {
  title: "instance",
  version: 1,
  schema: InstanceRecordSchema,
};

/** An instance as it is now. */
export type InstanceStatus =
  | { readonly name: string; readonly state: "starting" | "running" | "paused"; readonly record: InstanceRecord }
  | { readonly name: string; readonly state: "stopped"; readonly record: InstanceRecord }
  | { readonly name: string; readonly state: "dead"; readonly record: InstanceRecord; readonly reason: string }
  | { readonly name: string; readonly state: "broken"; readonly reason: string };
