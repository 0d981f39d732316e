import type { Page } from "./page.ts";

/** One command of the table. Pages are loaded when they are needed: a start must not pay for what it does not use. */
export interface Entry {
  /** The words typed: `template build`. */
  readonly path: string;
  readonly summary: string;
  readonly load: () => Promise<{ page: Page }>;
}

export const GROUPS: Readonly<Record<string, string>> = {
  template: "Build, list and change templates",
  registry: "Look at and look after the registry",
};

export const COMMANDS: readonly Entry[] = [
  { path: "template init", summary: "Write a new template's files", load: () => import("./commands/template/init.ts") },
  {
    path: "template create",
    summary: "Register a flake as a template",
    load: () => import("./commands/template/create.ts"),
  },
  {
    path: "template create-multi",
    summary: "Register one template for each of several roles",
    load: () => import("./commands/template/create-multi.ts"),
  },
  {
    path: "template build",
    summary: "Build a template, and snapshot it healthy",
    load: () => import("./commands/template/build.ts"),
  },
  { path: "template list", summary: "List templates", load: () => import("./commands/template/list.ts") },
  {
    path: "template info",
    summary: "Show a template, its revisions and snapshots",
    load: () => import("./commands/template/info.ts"),
  },
  { path: "template edit", summary: "Change a template's settings", load: () => import("./commands/template/edit.ts") },
  {
    path: "template rollback",
    summary: "Make an earlier revision the current one",
    load: () => import("./commands/template/rollback.ts"),
  },
  {
    path: "template prune",
    summary: "Remove old revisions, to free space",
    load: () => import("./commands/template/prune.ts"),
  },
  {
    path: "template delete",
    summary: "Delete a template and its revisions",
    load: () => import("./commands/template/delete.ts"),
  },
  {
    path: "template push",
    summary: "Send a template to the registry",
    load: () => import("./commands/template/push.ts"),
  },
  {
    path: "template pull",
    summary: "Take a template from the registry",
    load: () => import("./commands/template/pull.ts"),
  },
  {
    path: "template verify",
    summary: "Check a template's files against their digests",
    load: () => import("./commands/template/verify.ts"),
  },
  {
    path: "run",
    summary: "Start an instance: restored from a snapshot, or booted",
    load: () => import("./commands/run.ts"),
  },
  { path: "ls", summary: "List instances", load: () => import("./commands/ls.ts") },
  {
    path: "start",
    summary: "Start stopped or dead instances again, as they were",
    load: () => import("./commands/start.ts"),
  },
  { path: "stop", summary: "Stop instances", load: () => import("./commands/stop.ts") },
  { path: "rm", summary: "Remove instances and their data disks", load: () => import("./commands/rm.ts") },
  { path: "exec", summary: "Run a command in an instance", load: () => import("./commands/exec.ts") },
  { path: "logs", summary: "Show what an instance's services wrote", load: () => import("./commands/logs.ts") },
  { path: "cp", summary: "Copy files into or out of an instance", load: () => import("./commands/cp.ts") },
  { path: "forward", summary: "Forward ports to a running instance", load: () => import("./commands/forward.ts") },
  { path: "inspect", summary: "Show everything about an instance", load: () => import("./commands/inspect.ts") },
  { path: "pause", summary: "Stop an instance's CPUs", load: () => import("./commands/pause.ts") },
  { path: "resume", summary: "Let a paused instance run on", load: () => import("./commands/resume.ts") },
  {
    path: "registry login",
    summary: "Configure the registry, after trying it",
    load: () => import("./commands/registry/login.ts"),
  },
  {
    path: "registry status",
    summary: "Check that the registry can be used, and say how to mend it",
    load: () => import("./commands/registry/status.ts"),
  },
  {
    path: "registry ls",
    summary: "List the templates of the registry",
    load: () => import("./commands/registry/ls.ts"),
  },
  {
    path: "registry info",
    summary: "Show what the registry has of a template",
    load: () => import("./commands/registry/info.ts"),
  },
  {
    path: "registry delete",
    summary: "Remove a template, a tag or a revision from the registry",
    load: () => import("./commands/registry/delete.ts"),
  },
  {
    path: "registry gc",
    summary: "Remove what no template of the registry uses",
    load: () => import("./commands/registry/gc.ts"),
  },
  {
    path: "registry keygen",
    summary: "Make a key pair for signing what is pushed",
    load: () => import("./commands/registry/keygen.ts"),
  },
  { path: "setup", summary: "Install what this machine needs", load: () => import("./commands/setup.ts") },
  {
    path: "doctor",
    summary: "Check that this machine has what is needed, and say how to mend it",
    load: () => import("./commands/doctor.ts"),
  },
  {
    path: "status",
    summary: "Show the hypervisor in use, what runs, and what takes how much",
    load: () => import("./commands/status.ts"),
  },
  {
    path: "export",
    summary: "Write unit and job files that run a fleet of a template's VMs",
    load: () => import("./commands/export.ts"),
  },
  { path: "completions", summary: "Print shell completions", load: () => import("./commands/completions.ts") },
];
