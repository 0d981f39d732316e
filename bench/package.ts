import { cpSync } from "node:fs";
import { join } from "node:path";

/** Copies what is published: what is measured is the compiled package, not the sources of this clone. Returns its launcher. */
export function unpackPackage(directory: string): string {
  for (const part of ["bin", "dist", "nix", "package.json"]) {
    cpSync(join(import.meta.dirname, "..", part), join(directory, part), { recursive: true });
  }
  return join(directory, "bin", "mvmctl.js");
}
