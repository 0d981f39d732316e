import { dirname, join } from "node:path";
import { MvmError } from "../core/errors.ts";
import { ensureDirectory, readTextIfThere, writeFileAtomic } from "../core/files.ts";
import { checkFleet, type Fleet, type FleetFile } from "./fleet.ts";
import { kubernetesFiles } from "./kubernetes.ts";
import { nomadFiles } from "./nomad.ts";
import { systemdFiles } from "./systemd.ts";

export const ENGINES = ["systemd", "nomad", "kubernetes"] as const;
export type Engine = (typeof ENGINES)[number];

const RENDER: Record<Engine, (fleet: Fleet) => FleetFile[]> = {
  systemd: systemdFiles,
  nomad: nomadFiles,
  kubernetes: kubernetesFiles,
};

/**
 * Writes an engine's files for a fleet, and returns their paths. Files that are there and differ are left alone without
 * `force`: somebody may have changed them.
 * @throws MvmError `INVALID_SETTINGS`, `FILES_EXIST`, `FILE_FAILED`, `DISK_FULL`
 */
export function exportFleet(engine: Engine, fleet: Fleet, directory: string, options: { force: boolean }): string[] {
  checkFleet(fleet);
  const files = RENDER[engine](fleet).map(({ path, text }) => ({ path: join(directory, path), text }));
  const changed = files.filter(({ path, text }) => (readTextIfThere(path) ?? text) !== text);
  if (changed.length > 0 && !options.force) {
    throw new MvmError(
      "FILES_EXIST",
      `nothing was written: ${changed.map(({ path }) => path).join(", ")} would change`,
      {
        hint: "add --force, or choose another directory with -o",
      },
    );
  }
  for (const { path, text } of files) {
    ensureDirectory(dirname(path));
    writeFileAtomic(path, text);
  }
  return files.map(({ path }) => path);
}
