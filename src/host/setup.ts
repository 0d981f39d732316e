import { accessSync, constants, existsSync, readdirSync } from "node:fs";
import { userInfo } from "node:os";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { findProgram, runAttached } from "../core/process.ts";
import { binDirectory, findFirecracker, firecrackerVersion } from "../hypervisor/firecracker-binary.ts";
import { kvmAccess } from "../hypervisor/kvm-probe.ts";
import { probeQemu } from "../hypervisor/qemu-probe.ts";
import { installFile, installRelease } from "./firecracker-install.ts";
import { firecrackerRelease } from "./firecracker-release.ts";
import type { SetupFacts, SetupStep } from "./setup-plan.ts";
import { missingTools } from "./tools.ts";

/** Whether to install Firecracker: `auto` where KVM works and it is missing, or a file to take it from. */
export type FirecrackerWish = "auto" | "yes" | "no" | { readonly file: string };

/** Finds out what `setup` has to know. Changes nothing. */
export async function setupFacts(ctx: Context, wish: FirecrackerWish): Promise<SetupFacts> {
  const { env, paths } = ctx;
  const isRoot = process.getuid?.() === 0;
  const kvm = await kvmState(ctx);
  const firecracker = await firecrackerNeed(ctx, wish, kvm);
  return {
    missing: missingTools(env, { firecracker: firecracker !== "unwanted" }),
    certificates: existsSync("/etc/ssl/certs/ca-certificates.crt") || !findProgram("apt-get", env),
    hasApt: findProgram("apt-get", env) !== undefined,
    hasPackageLists: hasPackageLists(),
    becomeRoot: isRoot ? [] : findProgram("sudo", env) ? ["sudo"] : undefined,
    user: userInfo().username,
    hasSystemd: existsSync("/run/systemd/system"), // sd_booted(3)
    nixUsable: isRoot || existsSync("/nix/var/nix/daemon-socket/socket") || ownsNix(),
    hasNixDirectory: existsSync("/nix"),
    kvm,
    firecracker,
    binDirectory: binDirectory(paths),
  };
}

function hasPackageLists(): boolean {
  const lists = "/var/lib/apt/lists";
  return existsSync(lists) && readdirSync(lists).some((name) => name.includes("_Packages"));
}

/** A new /nix has nothing in it yet. */
function ownsNix(): boolean {
  const database = "/nix/var/nix/db";
  return canWrite(existsSync(database) ? database : "/nix");
}

function canWrite(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

async function kvmState({ paths, env, signal }: Context): Promise<SetupFacts["kvm"]> {
  const access = kvmAccess();
  if (access === "forbidden") return "forbidden";
  try {
    return (await probeQemu(paths.cache, env, signal)).identity.accelerator === "kvm" ? "usable" : "unusable";
  } catch {
    signal.throwIfAborted();
    // Without QEMU it can't be tried yet; the CPU says whether it most likely will.
    return access === "open" ? "usable" : "unusable";
  }
}

async function firecrackerNeed(
  { paths, env, signal }: Context,
  wish: FirecrackerWish,
  kvm: SetupFacts["kvm"],
): Promise<SetupFacts["firecracker"]> {
  if (typeof wish === "object") return wish;
  if (wish === "no" || (wish === "auto" && kvm !== "usable")) return "unwanted";
  const release = firecrackerRelease(env);
  const binary = findFirecracker(paths, env);
  const version = binary && (await firecrackerVersion(binary, signal).catch(() => undefined));
  const good = wish === "auto" ? version !== undefined : version === release.version;
  return good ? "installed" : release;
}

/**
 * Does one step. Those that are the user's to do are no error here: the caller shows them.
 * @throws MvmError `SETUP_FAILED`, or as installRelease and installFile
 */
export async function performStep(ctx: Context, step: SetupStep): Promise<void> {
  ctx.signal.throwIfAborted();
  switch (step.kind) {
    case "by-hand":
      return;
    case "firecracker":
      await ("file" in step.source ? installFile(ctx, step.source.file) : installRelease(ctx, step.source));
      return;
    case "command": {
      const [program = "", ...args] = step.command;
      const exitCode = await runAttached(program, args, { ...ctx.env, DEBIAN_FRONTEND: "noninteractive" });
      if (exitCode === 0) return;
      throw new MvmError("SETUP_FAILED", `could not ${step.says}: ${program} ended with ${exitCode}`, {
        hint: `it said why above; the command was: ${step.command.join(" ")}`,
      });
    }
    default:
      step satisfies never;
  }
}
