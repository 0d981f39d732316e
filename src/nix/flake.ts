import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { MvmError } from "../core/errors.ts";
import { run } from "../core/process.ts";
import { type DebianRequest, DebianRequestSchema } from "./debian-lock.ts";
import { type NixOptions, nix, nixSystem } from "./nix.ts";
import { presentInputs } from "./nix-store.ts";

/** The flake of our guest library, which is part of this package: every build uses the one that fits this mvmctl. */
export const GUEST_LIBRARY = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "nix");

/** A flake as Nix is asked for it. */
export interface Flake {
  /** What Nix takes: `path:/dir`, `git+file:///dir`, `github:…`. */
  readonly reference: string;
  /** The directory of a local flake. */
  readonly directory: string | undefined;
  /** Whether Git decides which of its files Nix sees. */
  readonly inGit: boolean;
}

/**
 * Finds out how to ask for a template's flake. In a Git repository that knows flake.nix, Nix sees what Git sees, as
 * `nix build` does; a directory that Git does not know (a fresh scaffold) is taken as it is.
 * @throws MvmError `FLAKE_NOT_FOUND`
 */
export async function openFlake(flake: string, signal?: AbortSignal): Promise<Flake> {
  if (!flake.startsWith("/")) return { reference: flake, directory: undefined, inGit: false };
  if (!existsSync(join(flake, "flake.nix"))) {
    const what = existsSync(flake) ? `${flake} has no flake.nix` : `${flake} does not exist`;
    throw new MvmError("FLAKE_NOT_FOUND", `the template's flake is not there: ${what}`, {
      hint: "point the template at the right place with `mvmctl template edit NAME --flake PATH`",
    });
  }
  const inGit = await isTracked(flake, "flake.nix", signal);
  return { reference: inGit ? flake : `path:${flake}`, directory: flake, inGit };
}

async function isTracked(directory: string, file: string, signal?: AbortSignal): Promise<boolean> {
  try {
    const options = { cwd: directory, timeoutMs: 10_000, ...(signal ? { signal } : {}) };
    return (await run("git", ["ls-files", "--error-unmatch", "--", file], options)).exitCode === 0;
  } catch (error) {
    if (error instanceof MvmError && error.code === "PROGRAM_MISSING") return false;
    throw error;
  }
}

/** Makes Nix see a new file of a flake in a Git repository, as Nix itself does with flake.lock: known, not committed. */
export async function showToGit(directory: string, file: string, signal?: AbortSignal): Promise<void> {
  await run("git", ["add", "--intent-to-add", "--", file], {
    cwd: directory,
    timeoutMs: 10_000,
    ...(signal ? { signal } : {}),
  });
}

const MetadataSchema = v.object({
  /** The locked reference: equal means that the source is equal. */
  url: v.string(),
  /** The source in the Nix store. */
  path: v.string(),
  resolved: v.object({ dir: v.optional(v.string(), "") }),
  locks: v.object({
    root: v.string(),
    nodes: v.record(v.string(), v.object({ inputs: v.optional(v.record(v.string(), v.unknown())) })),
  }),
});

export interface FlakeMetadata {
  readonly lockedUrl: string;
  /** Where its flake.nix lies: its own directory, or in the Nix store for a remote one. */
  readonly directory: string;
  /** Names of the flake's direct inputs. */
  readonly inputs: readonly string[];
}

/** Asks Nix what a flake is, and writes its flake.lock where one is missing. @throws MvmError `NIX_FAILED` */
export async function flakeMetadata(flake: Flake, options: NixOptions): Promise<FlakeMetadata> {
  const ask = () => nix(["flake", "metadata", "--json", flake.reference], options);
  const text = await ask().catch(async (error: unknown) => {
    // A scaffold names the guest library where mvmctl is on the machine that it was written on. Locked, it is not looked for.
    if (!(error instanceof MvmError) || !flake.directory) throw error;
    await nix(["flake", "lock", ...LIBRARY_OVERRIDE, flake.reference], options).catch(() => {
      throw error;
    });
    return await ask();
  });
  const { url, path, resolved, locks } = v.parse(MetadataSchema, JSON.parse(text));
  const directory = flake.directory ?? join(path, resolved.dir);
  return { lockedUrl: url, directory, inputs: Object.keys(locks.nodes[locks.root]?.inputs ?? {}) };
}

/** The input through which a flake gets our guest library, by convention. */
const LIBRARY_INPUT = "mvm";
const LIBRARY_OVERRIDE = ["--override-input", LIBRARY_INPUT, `path:${GUEST_LIBRARY}`];

/** Makes a flake use the guest library of this mvmctl, wherever its flake.lock found one. */
export function libraryOverride(metadata: FlakeMetadata): string[] {
  return metadata.inputs.includes(LIBRARY_INPUT) ? LIBRARY_OVERRIDE : [];
}

const ChoiceSchema = v.object({
  names: v.array(v.string()),
  chosen: v.nullable(v.string()),
  debianRequest: v.nullable(DebianRequestSchema),
});

export interface PackageChoice {
  /** The package's attribute below `packages.<system>`. */
  readonly name: string;
  /** What it asks of Debian, if it is made from Debian's packages. */
  readonly debianRequest: DebianRequest | undefined;
}

/** What Nix says of a flake without any `packages`; the names that it looked for say nothing to who asked for an image. */
const NO_PACKAGES = /does not provide attribute .*'packages'/;
const NOTHING_TO_CHOOSE = JSON.stringify({ names: [], chosen: null, debianRequest: null });

/**
 * Chooses the flake's package: the one named after the role if there is one, else the profile.
 * @throws MvmError `PACKAGE_NOT_FOUND`, naming those that are there
 */
export async function choosePackage(
  flake: Flake,
  wish: { role: string; profile: string },
  override: readonly string[],
  options: NixOptions,
): Promise<PackageChoice> {
  const system = nixSystem();
  // --apply sees all systems, so that a flake without packages for this one is no evaluation error.
  const apply = `systems: let
    packages = systems.${system} or { };
    chosen = if packages ? "${wish.role}" then "${wish.role}" else if packages ? "${wish.profile}" then "${wish.profile}" else null;
  in {
    names = builtins.attrNames packages;
    inherit chosen;
    debianRequest = if chosen == null then null else packages.\${chosen}.debianRequest or null;
  }`;
  const text = await nix(
    ["eval", "--json", ...override, "--apply", apply, `${flake.reference}#packages`],
    options,
  ).catch((error: unknown) => {
    if (error instanceof MvmError && NO_PACKAGES.test(error.message)) return NOTHING_TO_CHOOSE;
    throw error;
  });
  const { names, chosen, debianRequest } = v.parse(ChoiceSchema, JSON.parse(text));
  if (chosen !== null) return { name: chosen, debianRequest: debianRequest ?? undefined };
  const there = names.length > 0 ? `it has ${names.join(", ")}` : `it has no packages for ${system}`;
  throw new MvmError(
    "PACKAGE_NOT_FOUND",
    `the flake has no package '${wish.profile}' (nor '${wish.role}', the role): ${there}`,
    {
      hint: `add packages.${system}.${wish.profile} to flake.nix, or choose one: mvmctl template edit NAME --profile PROFILE`,
    },
  );
}

/** Builds a package and returns its path in this machine's store. */
export async function buildPackage(
  flake: Flake,
  packageName: string,
  override: readonly string[],
  options: NixOptions,
): Promise<string> {
  const installable = `${flake.reference}#packages.${nixSystem()}.${packageName}`;
  const store = options.settings?.store;
  if (store !== undefined) return buildInStore(store, installable, override, options);
  return await realise(installable, override, options);
}

/**
 * Builds in another store: what is here of the build's inputs (sources, files that only this machine has) is copied there,
 * and the result back. Nix checks no signatures on the way: both stores are the user's.
 */
async function buildInStore(
  store: string,
  installable: string,
  override: readonly string[],
  options: NixOptions,
): Promise<string> {
  const derivation = (await nix(["eval", "--raw", ...override, `${installable}.drvPath`], options)).trim();
  const inputs = await presentInputs(derivation, options);
  const copy = ["copy", "--no-check-sigs"];
  if (inputs.length > 0) await nix([...copy, "--to", store, ...inputs], options);
  const path = await realise(installable, ["--store", store, "--eval-store", "auto", ...override], options);
  await nix([...copy, "--from", store, path], options);
  return path;
}

async function realise(installable: string, more: readonly string[], options: NixOptions): Promise<string> {
  const text = await nix(["build", "--json", "--no-link", ...more, installable], options);
  const [built] = v.parse(v.array(v.object({ outputs: v.record(v.string(), v.string()) })), JSON.parse(text));
  const path = built?.outputs["out"] ?? Object.values(built?.outputs ?? {})[0];
  if (!path) throw new MvmError("NIX_FAILED", `nix build of ${installable} gave no output`);
  return path;
}
