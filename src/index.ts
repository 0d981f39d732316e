/**
 * mvmctl as a library: what the command line can do, a program can do with the same functions.
 *
 * ```ts
 * import { buildTemplate, chooseDriver, createContext, createTemplate, parseTemplateName, runInstance, TEMPLATE_DEFAULTS } from "mvmctl";
 *
 * const ctx = createContext();
 * const name = parseTemplateName("my-service");
 * createTemplate(ctx, name, { ...TEMPLATE_DEFAULTS, flake: "./my-service" }, process.cwd());
 * const driver = await chooseDriver(ctx);
 * await buildTemplate(ctx, name, { force: false, snapshot: { drivers: [driver], timeoutMs: 180_000 } });
 * const { name: instance } = await runInstance(ctx, {
 *   template: name, ports: [], volumes: [], env: {}, cold: false, waitFor: "healthy", timeoutMs: 60_000,
 * });
 * ```
 *
 * Every function throws `MvmError` for what a caller can act on.
 */
import type { Context, Progress } from "./core/context.ts";
import { resolvePaths } from "./core/paths.ts";

export type { Context, Progress } from "./core/context.ts";
export { MvmError } from "./core/errors.ts";
export {
  type InstanceName,
  parseInstanceName,
  parseRevisionId,
  parseTemplateName,
  type RevisionId,
  type TemplateName,
} from "./core/names.ts";
export { checkMachine } from "./host/doctor.ts";
export { chooseDriver } from "./hypervisor/choose.ts";
export type { Driver, HypervisorIdentity, PortForward } from "./hypervisor/driver.ts";
export { checkInstances } from "./instance/checks.ts";
export { copyInto, copyOut } from "./instance/copy.ts";
export { execInInstance } from "./instance/exec.ts";
export { type ForegroundEnd, type ForegroundOptions, runInForeground } from "./instance/foreground.ts";
export { forwardPorts } from "./instance/forward.ts";
export { inspectInstance } from "./instance/inspect.ts";
export { listInstances, revisionsOfInstances, runningInstancesOf } from "./instance/list.ts";
export { instanceLogs } from "./instance/logs.ts";
export { pauseInstance, resumeInstance } from "./instance/pause.ts";
export type { InstanceRecord, InstanceStatus } from "./instance/record.ts";
export { runInstance } from "./instance/run.ts";
export { type RunManyOptions, runInstances } from "./instance/run-many.ts";
export type { RunOutcome, RunRequest } from "./instance/run-request.ts";
export { startInstance } from "./instance/start.ts";
export { type MachineStatus, machineStatus } from "./instance/status.ts";
export { removeInstance, stopInstance } from "./instance/stop.ts";
export { deleteRemote, listRemoteTemplates, remoteTemplateInfo } from "./registry/catalogue.ts";
export { checkRegistry } from "./registry/check-registry.ts";
export { collectGarbage } from "./registry/collect.ts";
export { supportsConditions } from "./registry/conditions.ts";
export { type PullOutcome, type PullRequest, pullTemplate } from "./registry/pull.ts";
export { type PushOutcome, type PushRequest, pushTemplate } from "./registry/push.ts";
export { repairTemplate } from "./registry/repair.ts";
export { openStore } from "./registry/settings.ts";
export { generateKey, readSigningKey } from "./registry/signatures.ts";
export type { Store } from "./registry/store.ts";
export { type VerifyOutcome, verifyTemplate } from "./registry/verify.ts";
export { verifyRemote } from "./registry/verify-remote.ts";
export { type BuildOutcome, type BuildRequest, buildTemplate } from "./template/build.ts";
export { checkTemplates } from "./template/checks.ts";
export { createTemplate, createTemplates } from "./template/create.ts";
export { deleteTemplate } from "./template/delete.ts";
export { editTemplate } from "./template/edit.ts";
export { initTemplate } from "./template/init.ts";
export { type PrunedRevision, type PruneOptions, pruneTemplate } from "./template/prune.ts";
export { rollbackTemplate } from "./template/rollback.ts";
export { TEMPLATE_DEFAULTS, type TemplateSettings, type TemplateSpec } from "./template/spec.ts";
export { listTemplates, templateInfo } from "./template/store.ts";

export interface ContextOptions {
  /** Instead of `$MVM_DATA_DIR` or `~/.mvm`. */
  readonly dataDir?: string;
  /** Instead of the process's own. */
  readonly env?: NodeJS.ProcessEnv;
  /** Aborting it stops whatever waits, which then cleans up. */
  readonly signal?: AbortSignal;
  /** Told what long operations do. */
  readonly report?: (progress: Progress) => void;
}

/** What every function of the library needs of the world around it. */
export function createContext(options: ContextOptions = {}): Context {
  const env = {
    ...(options.env ?? process.env),
    ...(options.dataDir === undefined ? {} : { MVM_DATA_DIR: options.dataDir }),
  };
  return {
    paths: resolvePaths(env),
    env,
    signal: options.signal ?? new AbortController().signal,
    report: options.report ?? (() => {}),
  };
}
