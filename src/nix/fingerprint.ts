import { createHash, type Hash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { run } from "../core/process.ts";
import { type Flake, GUEST_LIBRARY } from "./flake.ts";

/**
 * A digest of everything a build of a local flake depends on: equal means that Nix would build the same, so it need not
 * be asked, which takes a second or more. Files are told apart by size, inode and times.
 * @param settings what else decides the result: the template's spec, the versions of the tools
 */
export async function fingerprintFlake(flake: Flake, settings: unknown, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  hash.update(JSON.stringify(settings));
  if (flake.directory) {
    const root = flake.inGit ? await gitRoot(flake.directory, signal) : flake.directory;
    if (flake.inGit) await addGitTree(hash, root, signal);
    else addTree(hash, root);
    for (const input of pathInputs(join(flake.directory, "flake.lock"))) addTree(hash, resolve(flake.directory, input));
  }
  addTree(hash, GUEST_LIBRARY);
  return hash.digest("hex");
}

/** What Nix does not look at, or makes itself. */
const IGNORED = /^(\.git|\.direnv|node_modules|result(-.*)?)$/;

function addTree(hash: Hash, directory: string): void {
  let entries: string[];
  try {
    entries = readdirSync(directory).sort();
  } catch {
    hash.update(`missing ${directory}\n`);
    return;
  }
  for (const entry of entries) {
    if (IGNORED.test(entry)) continue;
    const path = join(directory, entry);
    const isDirectory = addEntry(hash, path);
    if (isDirectory) addTree(hash, path);
  }
}

/** Says whether it is a directory. A directory's own times change with Nix's and Git's temporary files: they don't count. */
function addEntry(hash: Hash, path: string): boolean {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (!stat) hash.update(`gone ${path}\n`);
  else if (stat.isDirectory()) hash.update(`directory ${path}\n`);
  else hash.update(`${path} ${stat.mode} ${stat.size} ${stat.ino} ${stat.mtimeNs}\n`);
  return stat?.isDirectory() ?? false;
}

async function gitRoot(directory: string, signal?: AbortSignal): Promise<string> {
  return (await git(directory, ["rev-parse", "--show-toplevel"], signal)).trim();
}

/** The commit's tree, and what differs from it in the work tree: that is what Nix copies. */
async function addGitTree(hash: Hash, root: string, signal?: AbortSignal): Promise<void> {
  hash.update(await git(root, ["rev-parse", "--verify", "--quiet", "HEAD^{tree}"], signal));
  const changes = await git(root, ["status", "--porcelain", "-z", "--untracked-files=no", "--no-renames"], signal);
  for (const change of changes.split("\0").filter(Boolean)) {
    hash.update(change.slice(0, 2));
    addEntry(hash, join(root, change.slice(3)));
  }
}

async function git(cwd: string, args: string[], signal?: AbortSignal): Promise<string> {
  return (await run("git", args, { cwd, timeoutMs: 30_000, ...(signal ? { signal } : {}) })).stdout;
}

/** Directories that a flake.lock takes as they are; everything else in it is pinned by its digest. */
function pathInputs(lockFile: string): string[] {
  try {
    const lock = JSON.parse(readFileSync(lockFile, "utf8")) as {
      nodes?: Record<string, { original?: { type?: string; path?: string } }>;
    };
    return Object.values(lock.nodes ?? {}).flatMap(({ original }) =>
      original?.type === "path" && original.path ? [original.path] : [],
    );
  } catch {
    return [];
  }
}
