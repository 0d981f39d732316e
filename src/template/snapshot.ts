import * as v from "valibot";
import type { DocumentKind } from "../core/documents.ts";
import { HypervisorIdentitySchema } from "../hypervisor/driver.ts";
import { FileDigestSchema } from "./revision.ts";

/** snapshot.json: a paused, healthy VM of one revision, and what a host must have to load it. */
export const SnapshotSchema = v.strictObject({
  version: v.literal(1),
  /** SHA-256 of the revision's manifest. */
  revision: v.string(),
  hypervisor: HypervisorIdentitySchema,
  cpus: v.number(),
  memMiB: v.number(),
  dataDiskMiB: v.number(),
  /** RFC 3339, UTC. */
  createdAt: v.string(),
  /** Milliseconds from spawning the temporary VM to its agent's first answer, and to its being healthy. */
  bootMs: v.number(),
  healthyMs: v.number(),
  files: v.strictObject({
    vmstate: FileDigestSchema,
    memory: FileDigestSchema,
    /** The data disk as it was at that moment. */
    dataDisk: v.optional(FileDigestSchema),
  }),
});
export type Snapshot = v.InferOutput<typeof SnapshotSchema>;
export const SnapshotDocument: DocumentKind<Snapshot> = { title: "snapshot", version: 1, schema: SnapshotSchema };
