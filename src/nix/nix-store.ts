import { createHash } from "node:crypto";
import { lstatSync } from "node:fs";
import { join } from "node:path";
import { MvmError } from "../core/errors.ts";
import { run } from "../core/process.ts";
import { lastLines } from "../core/text.ts";
import { NIX_INSTALL_HINT } from "./nix.ts";

export interface StoreOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
}

/** Nix's own variable for a store somewhere else. */
function storeDirectory(env: NodeJS.ProcessEnv): string {
  return env["NIX_STORE_DIR"] || "/nix/store";
}

/** Content that is put into the Nix store under its own hash. */
export interface FixedContent {
  readonly name: string;
  /** Of the file itself, or of the whole tree (`nix-hash --type sha256`). 64 hexadecimal digits. */
  readonly sha256: string;
  readonly mode: "file" | "tree";
}

/** Where the Nix store keeps such content (Nix, src/libstore/store-api.cc: makeFixedOutputPath). */
export function fixedStorePath(content: FixedContent, env: NodeJS.ProcessEnv): string {
  const { name, sha256, mode } = content;
  const directory = storeDirectory(env);
  const [type, digest] = mode === "tree" ? ["source", sha256] : ["output:out", hex(`fixed:out:sha256:${sha256}:`)];
  const fingerprint = createHash("sha256").update(`${type}:sha256:${digest}:${directory}:${name}`).digest();
  return join(directory, `${nixBase32(foldTo20Bytes(fingerprint))}-${name}`);
}

function hex(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function foldTo20Bytes(digest: Uint8Array): Uint8Array {
  const folded = new Uint8Array(20);
  for (const [index, byte] of digest.entries()) folded[index % 20]! ^= byte;
  return folded;
}

/** Nix's own base 32: without e, o, t and u, and the last bits first. */
const ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

function nixBase32(bytes: Uint8Array): string {
  const length = Math.ceil((bytes.length * 8) / 5);
  let text = "";
  for (let digit = length - 1; digit >= 0; digit--) {
    const bit = digit * 5;
    const index = bit >> 3;
    const pair = bytes[index]! | ((bytes[index + 1] ?? 0) << 8);
    text += ALPHABET[(pair >> (bit & 7)) & 31];
  }
  return text;
}

/** Which of these paths the store does not have, whole and registered. */
export async function missingStorePaths(paths: readonly string[], options: StoreOptions): Promise<Set<string>> {
  const absent = new Set(paths.filter((path) => !lstatSync(path, { throwIfNoEntry: false })));
  const present = paths.filter((path) => !absent.has(path));
  if (present.length === 0) return absent;
  const output = await nixStore(["--check-validity", "--print-invalid", ...present], options);
  for (const path of output.split("\n").filter(Boolean)) absent.add(path);
  return absent;
}

/** Puts files (or trees) into the store under their hashes, and returns their store paths in the same order. */
export async function addFixed(
  mode: FixedContent["mode"],
  paths: readonly string[],
  options: StoreOptions,
): Promise<string[]> {
  const recursive = mode === "tree" ? ["--recursive"] : [];
  return (await nixStore(["--add-fixed", ...recursive, "sha256", ...paths], options)).split("\n").filter(Boolean);
}

/** SHA-256 of a whole tree as Nix counts it. */
export async function hashTree(path: string, options: StoreOptions): Promise<string> {
  return (await nixTool("nix-hash", ["--type", "sha256", path], options)).trim();
}

/** The store paths that a derivation is built from, as far as they are here: sources, and what was built before. */
export async function presentInputs(derivation: string, options: StoreOptions): Promise<string[]> {
  const all = await nixStore(["--query", "--requisites", "--include-outputs", derivation], options);
  return all.split("\n").filter((path) => path !== "" && !path.endsWith(".drv"));
}

function nixStore(args: readonly string[], options: StoreOptions): Promise<string> {
  return nixTool("nix-store", args, options);
}

async function nixTool(program: string, args: readonly string[], options: StoreOptions): Promise<string> {
  const result = await run(program, args, { ...options, installHint: NIX_INSTALL_HINT });
  if (result.exitCode === 0) return result.stdout;
  throw new MvmError("NIX_FAILED", `${program} failed: ${lastLines(result.stderr, 1)}`, {
    detail: lastLines(result.stderr, 10),
    ...(/permission denied|not permitted/i.test(result.stderr)
      ? { hint: "install Nix's daemon (apt-get install nix-setup-systemd), or run as root" }
      : {}),
  });
}
