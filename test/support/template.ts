import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Mvmctl, REPOSITORY } from "./mvmctl.ts";

/** Registers one of examples/ as a template and builds it with a snapshot. */
export async function buildExample(mvm: Mvmctl, example: string, settings: readonly string[] = []): Promise<void> {
  await mvm.ok(["template", "create", example, "--flake", join(REPOSITORY, "examples", example), ...settings]);
  await mvm.ok(["template", "build", example, "--snapshot"]);
}

/** Makes a flake in the data directory that is examples/hello with more in its mkGuest, registers and builds it. Returns its directory. */
export async function buildHelloWith(
  mvm: Mvmctl,
  name: string,
  more: string,
  build: readonly string[] = ["--snapshot"],
): Promise<string> {
  const directory = join(mvm.dataDir, `flake-${name}`);
  cpSync(join(REPOSITORY, "examples", "hello"), directory, { recursive: true });
  rmSync(join(directory, "flake.lock"));
  const flake = join(directory, "flake.nix");
  const text = readFileSync(flake, "utf8").replace("path:../../nix", `path:${REPOSITORY}/nix`);
  writeFileSync(flake, text.replace("healthChecks", `${more}\n\n      healthChecks`));
  await mvm.ok(["template", "create", name, "--flake", directory, "--mem", "256"]);
  await mvm.ok(["template", "build", name, ...build]);
  return directory;
}

export interface Started {
  readonly name: string;
  readonly start: "restored" | "booted";
  readonly coldBootReason?: string;
}

/** Runs a template and returns how it started. */
export function start(mvm: Mvmctl, template: string, name: string, more: readonly string[] = []): Promise<Started> {
  return mvm.json<Started>(["run", "--template", template, "--name", name, ...more]);
}

/** What a shell in the guest prints. */
export async function shell(mvm: Mvmctl, name: string, script: string, user = "root"): Promise<string> {
  return (await mvm.ok(["exec", "--user", user, name, "--", "sh", "-c", script])).trim();
}
