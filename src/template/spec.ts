import * as v from "valibot";
import type { DocumentKind } from "../core/documents.ts";
import { LIMITS } from "../core/sizes.ts";

/** What a template is made from, and how large its VMs are. Stored as template.json. */
const whole = (bounds: { min: number; max: number }) =>
  v.pipe(v.number(), v.integer(), v.minValue(bounds.min), v.maxValue(bounds.max));

export const TemplateSpecSchema = v.strictObject({
  version: v.literal(1),
  name: v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9._-]{0,62}$/)),
  /** A flake reference: an absolute path of this machine, or a remote one (`github:owner/name`, `git+https:`). */
  flake: v.pipe(v.string(), v.minLength(1), v.maxLength(4096)),
  /** The flake's package that is built, unless the flake has one named after the role. */
  profile: v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_-]{0,62}$/)),
  role: v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_-]{0,62}$/)),
  cpus: whole(LIMITS.cpus),
  memMiB: whole(LIMITS.memMiB),
  /** MiB of the disk at /mnt/data; 0 for none. */
  dataDiskMiB: whole(LIMITS.dataDiskMiB),
  /** RFC 3339, UTC. */
  createdAt: v.string(),
});
export type TemplateSpec = v.InferOutput<typeof TemplateSpecSchema>;

/** The settings `template edit` can change. */
export type TemplateSettings = Pick<TemplateSpec, "flake" | "profile" | "role" | "cpus" | "memMiB" | "dataDiskMiB">;

export const TEMPLATE_DEFAULTS = {
  flake: ".",
  profile: "default",
  role: "worker",
  cpus: 2,
  memMiB: 1024,
  dataDiskMiB: 0,
} as const satisfies TemplateSettings;

export const TemplateSpecDocument: DocumentKind<TemplateSpec> = {
  title: "template",
  version: 1,
  schema: TemplateSpecSchema,
};
