import { lstatSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { ensureDirectory } from "../core/files.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";

/**
 * What a pull has fetched so far. It stays when the pull is broken off, and the next pull of that revision goes on with
 * it: every chunk that is in it is checked again. One that nobody came back for is swept after a day.
 */
const PULLS = "pulls";
const FORGOTTEN_MS = 24 * 60 * 60 * 1000;

/** Where the files of a revision are gathered, in the layout they will have. */
export function partialDirectory({ paths }: Context, name: TemplateName, id: RevisionId): string {
  return join(paths.cache, PULLS, `${name}-${id}`);
}

export function preparePartial(ctx: Context, name: TemplateName, id: RevisionId): string {
  sweepForgotten(ctx);
  const directory = partialDirectory(ctx, name, id);
  ensurePlainDirectory(directory);
  return directory;
}

/** Makes a directory below one that is there. A link or anything else in its place is removed: what is fetched must not go elsewhere. */
export function ensurePlainDirectory(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === false) rmSync(path);
  ensureDirectory(path);
}

function sweepForgotten({ paths }: Context): void {
  const pulls = join(paths.cache, PULLS);
  ensurePlainDirectory(pulls);
  for (const entry of readdirSync(pulls)) {
    const path = join(pulls, entry);
    const touched = lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - touched > FORGOTTEN_MS) rmSync(path, { recursive: true, force: true });
  }
}
