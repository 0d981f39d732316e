import { createHash } from "node:crypto";
import { chownSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { MvmError } from "../core/errors.ts";
import { findProgram } from "../core/process.ts";
import type { Jail } from "./driver.ts";

/** Firecracker's jailer: docs/jailer.md in its repository. */

/** A jail, and what of this machine it takes. */
export interface PreparedJail extends Jail {
  readonly jailer: string;
  readonly id: string;
}

const CGROUP_ROOT = "/sys/fs/cgroup";

/**
 * Makes ready what a VM's jail needs: its user gets the files that the VM writes.
 * @throws MvmError `PROGRAM_MISSING`, `JAIL_UNSUPPORTED`, `JAIL_NEEDS_ROOT`
 */
export function prepareJail(
  jail: Jail,
  vm: { readonly directory: string; readonly binary: string; readonly writes: readonly string[] },
  env: NodeJS.ProcessEnv,
): PreparedJail {
  const jailer = findJailer(vm.binary, env);
  requireControllers(jail);
  giveTo(jail, vm.writes);
  return { ...jail, jailer, id: jailId(vm.directory) };
}

function requireControllers(jail: Jail): void {
  const missing = missingControllers(jail, readControllers());
  if (missing.length === 0) return;
  throw new MvmError("JAIL_UNSUPPORTED", `a jail needs cgroup v2, and ${CGROUP_ROOT} lacks its ${missing.join(", ")}`, {
    hint: "boot with systemd.unified_cgroup_hierarchy=1, or leave --jail out",
  });
}

/** The controllers that a jail's limits need and that are not there. */
export function missingControllers({ cgroup }: Jail, there: readonly string[]): string[] {
  const needed = new Set(Object.keys(cgroup).map((file) => file.split(".")[0]!));
  return [...needed].filter((controller) => !there.includes(controller));
}

function readControllers(): string[] {
  try {
    return readFileSync(join(CGROUP_ROOT, "cgroup.controllers"), "utf8").trim().split(" ");
  } catch {
    return []; // cgroup v1
  }
}

function giveTo({ uid, gid }: { uid: number; gid: number }, paths: readonly string[]): void {
  for (const path of paths) {
    try {
      chownSync(path, uid, gid);
    } catch (error) {
      throw new MvmError("JAIL_NEEDS_ROOT", "only root can put a VM into a jail", {
        hint: "run mvmctl as root, or leave --jail out: Firecracker sees nothing but its VM's files anyway",
        cause: error,
      });
    }
  }
}

function findJailer(binary: string, env: NodeJS.ProcessEnv): string {
  const found = findProgram(jailerBeside(binary), env) ?? findProgram("jailer", env);
  if (found) return found;
  throw new MvmError("PROGRAM_MISSING", `there is no jailer beside ${binary}, nor on the PATH`, {
    hint: "it comes with Firecracker's release: put it beside the firecracker program",
  });
}

/** It makes /dev/kvm and /dev/net/tun itself. */
export function jailerCommand(jail: PreparedJail, binary: string, base: string): string[] {
  const limits = Object.entries(jail.cgroup).flatMap(([file, value]) => ["--cgroup", `${file}=${value}`]);
  return [
    jail.jailer,
    ...["--id", jail.id, "--exec-file", binary],
    ...["--uid", String(jail.uid), "--gid", String(jail.gid)],
    ...["--chroot-base-dir", base],
    ...["--cgroup-version", "2", "--parent-cgroup", JAIL_CGROUP],
    ...limits,
    "--",
  ];
}

/** Below the root of the cgroups; the jailer makes one for each VM in it. */
const JAIL_CGROUP = "mvmctl";

/** The name of a VM's jail: the jailer takes 64 letters, digits and hyphens. */
export function jailId(directory: string): string {
  const name = basename(directory)
    .replace(/[^A-Za-z0-9]+/g, "-")
    .slice(0, 40);
  return `${name}-${createHash("sha256").update(directory).digest("hex").slice(0, 16)}`;
}

/** The cgroup that the jailer made for a VM, and leaves behind. */
export function jailCgroup(directory: string): string {
  return join(CGROUP_ROOT, JAIL_CGROUP, jailId(directory));
}

/** The jailer that belongs to a Firecracker: releases have `firecracker-v1.16.1-x86_64` and `jailer-v1.16.1-x86_64` side by side. */
export function jailerBeside(binary: string): string {
  return join(dirname(binary), basename(binary).replace("firecracker", "jailer"));
}
