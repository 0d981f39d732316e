import type { StoredRevision } from "./revisions.ts";
import type { TemplateSettings } from "./spec.ts";

/** What differs between a template's settings and its current revision, a sentence each: a build would bring it about. */
export function pendingChanges(
  now: TemplateSettings,
  { manifest, build }: Pick<StoredRevision, "manifest" | "build">,
): string[] {
  // A revision that was not built here does not say where its flake was.
  const built: TemplateSettings = { flake: build?.flake ?? now.flake, ...manifest.spec };
  return FIELDS.filter(({ field }) => now[field] !== built[field]).map(
    ({ field, label, unit = "" }) =>
      `${label}: ${now[field]}${unit} now, ${built[field]}${unit} in the current revision`,
  );
}

const FIELDS: readonly { field: keyof TemplateSettings; label: string; unit?: string }[] = [
  { field: "flake", label: "flake" },
  { field: "profile", label: "profile" },
  { field: "role", label: "role" },
  { field: "cpus", label: "cpus" },
  { field: "memMiB", label: "mem", unit: " MiB" },
  { field: "dataDiskMiB", label: "data disk", unit: " MiB" },
];
