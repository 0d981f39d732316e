import { existsSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { MvmError } from "../core/errors.ts";

/** `github:`, `git+https:`, `tarball+file:` …: a URL's scheme (RFC 3986, 3.1). Nix knows which ones there are. */
const SCHEME = /^[a-z][a-z0-9+.-]*:/i;

/**
 * A flake as a template keeps it: a local one becomes an absolute path, so that it means the same from everywhere; a
 * remote reference stays as it was typed.
 * @throws MvmError `INVALID_FLAKE`, `FLAKE_NOT_FOUND`
 */
export function absoluteFlake(text: string, cwd: string, home = homedir()): string {
  if (text === "" || /\p{Cc}/u.test(text)) {
    throw new MvmError(
      "INVALID_FLAKE",
      text === "" ? "the flake reference is empty" : "the flake reference has control characters",
      {
        hint: "give a directory (--flake ./my-service) or a reference (--flake github:owner/repository)",
      },
    );
  }
  const hash = text.indexOf("#");
  if (hash >= 0) {
    throw new MvmError("INVALID_FLAKE", `'${text}' names a package behind the '#'`, {
      hint: `give the package as the profile: --flake ${text.slice(0, hash) || "."} --profile ${text.slice(hash + 1) || "default"}`,
    });
  }
  const local = text.startsWith("path:") ? text.slice("path:".length) : text;
  if (SCHEME.test(local)) return local;
  const inHome = local === "~" || local.startsWith("~/");
  return requireFlake(inHome ? resolve(home, local.slice(2)) : resolve(cwd, local));
}

function requireFlake(path: string): string {
  // Nix would read what follows as a package's name or a query, however the path is quoted on our side.
  const special = /[#?]/.exec(path)?.[0];
  if (special) {
    throw new MvmError(
      "INVALID_FLAKE",
      `the flake's path ${path} has a '${special}', which Nix takes for the end of the path`,
      {
        hint: "rename the directory",
      },
    );
  }
  if (existsSync(join(path, "flake.nix"))) return path;
  if (basename(path) === "flake.nix" && existsSync(path)) {
    throw new MvmError("FLAKE_NOT_FOUND", `${path} is a file, and a flake is a directory`, {
      hint: `write --flake ${dirname(path)}`,
    });
  }
  const stat = statSync(path, { throwIfNoEntry: false });
  const what =
    stat === undefined
      ? `${path} does not exist`
      : stat.isDirectory()
        ? `${path} has no flake.nix`
        : `${path} is no directory`;
  throw new MvmError("FLAKE_NOT_FOUND", `there is no flake: ${what}`, {
    hint: "give the directory of a flake.nix with --flake PATH, or write a new one: mvmctl template init NAME --local",
  });
}
