import { existsSync, lstatSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileError, isErrno, MvmError } from "../core/errors.ts";
import { ensureDirectory, syncDirectory } from "../core/files.ts";
import type { TemplateName } from "../core/names.ts";
import { type PackageSet, parsePreset } from "./presets.ts";
import { scaffold } from "./scaffold.ts";

export interface InitRequest {
  readonly name: TemplateName;
  /** One of PRESETS. */
  readonly preset: string;
  readonly pkgs: PackageSet;
  /** An absolute path. It is made if it is not there. */
  readonly directory: string;
}

export interface InitOutcome {
  /** Names of the files that were written. */
  readonly files: string[];
}

/**
 * Writes a new template's flake.nix, .gitignore and README.md: all of them, or nothing if one of them is there.
 * @throws MvmError `UNKNOWN_PRESET`, `FILES_EXIST`, `FILE_FAILED`, `DISK_FULL`
 */
export function initTemplate({ name, preset, pkgs, directory }: InitRequest): InitOutcome {
  const texts = Object.entries(scaffold({ name, preset: parsePreset(preset), pkgs }));
  if (existsSync(directory) && !statSync(directory).isDirectory()) throw filesExist([directory]);
  ensureDirectory(directory);
  const existing = texts.map(([file]) => join(directory, file)).filter(isThere);
  if (existing.length > 0) throw filesExist(existing);
  const written: string[] = [];
  try {
    for (const [file, text] of texts) {
      const path = join(directory, file);
      writeNew(path, text);
      written.push(path);
    }
    syncDirectory(directory);
  } catch (error) {
    for (const path of written) rmSync(path, { force: true });
    throw error;
  }
  return { files: texts.map(([file]) => file) };
}

/** True for a dangling link too. */
function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    throw fileError(error, path, "read");
  }
}

/** Writes a file that must not be there, not even as a dangling link. */
function writeNew(path: string, text: string): void {
  try {
    writeFileSync(path, text, { flag: "wx", flush: true });
  } catch (error) {
    if (isErrno(error, "EEXIST")) throw filesExist([path]);
    rmSync(path, { force: true }); // half written, on a full disk
    throw fileError(error, path, "write");
  }
}

function filesExist(paths: readonly string[]): MvmError {
  return new MvmError("FILES_EXIST", `nothing was written, because these are there already: ${paths.join(", ")}`, {
    hint: "move them away, or choose an empty directory",
  });
}
