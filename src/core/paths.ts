import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { InstanceName, RevisionId, TemplateName } from "./names.ts";

/** Where everything of one data directory lies; see docs/files.md. All paths are absolute. */
export interface Paths {
  readonly dataDir: string;
  readonly templates: string;
  readonly instances: string;
  readonly cache: string;
  /** Programs that `mvmctl setup` installed. */
  readonly bin: string;
  template(name: TemplateName): string;
  templateSpec(name: TemplateName): string;
  /** The symlink to the current revision. */
  current(name: TemplateName): string;
  revisions(name: TemplateName): string;
  revision(name: TemplateName, id: RevisionId): string;
  snapshots(name: TemplateName, id: RevisionId): string;
  instance(name: InstanceName): string;
}

/** `$MVM_DATA_DIR`, or `~/.mvm`. */
export function resolvePaths(env: NodeJS.ProcessEnv): Paths {
  const dataDir = resolve(env["MVM_DATA_DIR"] || join(env["HOME"] || homedir(), ".mvm"));
  const templates = join(dataDir, "templates");
  const instances = join(dataDir, "instances");
  const template = (name: TemplateName) => join(templates, name);
  const revisions = (name: TemplateName) => join(template(name), "revisions");
  const revision = (name: TemplateName, id: RevisionId) => join(revisions(name), id);
  return {
    dataDir,
    templates,
    instances,
    cache: join(dataDir, "cache"),
    bin: join(dataDir, "bin"),
    template,
    templateSpec: (name) => join(template(name), "template.json"),
    current: (name) => join(template(name), "current"),
    revisions,
    revision,
    snapshots: (name, id) => join(revision(name, id), "snapshots"),
    instance: (name) => join(instances, name),
  };
}
