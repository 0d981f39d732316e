import { existsSync, linkSync, lstatSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { sha256OfChunks } from "../core/chunks.ts";
import type { Context } from "../core/context.ts";
import { sha256File } from "../core/digests.ts";
import { requireSpace } from "../core/disk-space.ts";
import { MvmError } from "../core/errors.ts";
import type { TemplateName } from "../core/names.ts";
import { MiB } from "../core/sizes.ts";
import { type FileToFetch, fetchFiles } from "./fetch-files.ts";
import { LocalChunks } from "./local-chunks.ts";
import { ensurePlainDirectory } from "./partial.ts";
import type { ContentRecord, RemoteFile, RemoteRevision, RemoteSnapshot } from "./records.ts";
import { openSparse } from "./sparse-file.ts";
import type { Store } from "./store.ts";
import { type TransferTotals, transferProgress } from "./transfer.ts";

export interface Download {
  readonly name: TemplateName;
  /** Where the files go, in the layout of a revision. */
  readonly directory: string;
  readonly revision: RemoteRevision | undefined;
  readonly snapshots: readonly RemoteSnapshot[];
}

interface Part {
  readonly record: ContentRecord;
  readonly file: RemoteFile;
  readonly path: string;
}

const SPARE_BYTES = 16 * MiB;

/**
 * Fetches every file of a revision and its snapshots, and checks the digest of each whole file.
 * @throws MvmError `DISK_FULL`, `CHUNK_DAMAGED`, `ARTIFACT_DAMAGED`, `REGISTRY_…`
 */
export async function downloadFiles(
  ctx: Context,
  store: Store,
  download: Download,
  totals: TransferTotals,
): Promise<void> {
  const parts = partsOf(download);
  requireSpace(download.directory, spaceFor(parts) + SPARE_BYTES, `pulling ${download.name}`);
  ctx.report({ kind: "step", text: `Fetching ${download.name}` });
  const local = LocalChunks.find(ctx);
  const fetch = { ctx, store, local, totals, onProgress: transferProgress(ctx, "fetched", totals) };
  const whole = await takeWholeFiles(ctx, parts, local, totals);
  const checks: Promise<void>[] = [];
  const addFetched = ({ path, file, record }: Part) => local.addFetched(path, file, record.chunkBytes);
  whole.forEach(addFetched);
  try {
    // The largest first: its digest is computed while the others come.
    const rest = parts.filter((part) => !whole.has(part)).sort((a, b) => b.file.size - a.file.size);
    for (const part of rest) {
      const begun = await fetchFile(fetch, part);
      addFetched(part);
      const check = requireDigest(part, begun, ctx.signal);
      check.catch(() => {}); // awaited below
      checks.push(check);
    }
  } finally {
    await Promise.allSettled(checks);
  }
  await Promise.all(checks);
}

function partsOf({ directory, revision, snapshots }: Download): Part[] {
  const parts: Part[] = [];
  const add = (record: ContentRecord, to: string) => {
    for (const file of record.files) parts.push({ record, file, path: join(to, file.file) });
  };
  if (revision) add(revision.record, directory);
  if (snapshots.length > 0) ensurePlainDirectory(join(directory, "snapshots"));
  for (const { record } of snapshots) {
    const to = join(directory, "snapshots", record.key);
    ensurePlainDirectory(to);
    add(record, to);
  }
  return parts;
}

/** Bytes that will be allocated: holes take none. What is there from an earlier try counts for nothing: better too careful. */
function spaceFor(parts: readonly Part[]): number {
  let bytes = 0;
  for (const { file, record } of parts) {
    const content = file.chunks.filter((chunk) => typeof chunk !== "number").length * record.chunkBytes;
    bytes += Math.min(file.size, content);
  }
  return bytes;
}

/** Files that are not to be written: an earlier try sealed them, or a revision here has them (a kernel is the same in most). */
async function takeWholeFiles(
  ctx: Context,
  parts: readonly Part[],
  local: LocalChunks,
  totals: TransferTotals,
): Promise<Set<Part>> {
  const taken = new Set<Part>();
  for (const part of parts) {
    if (!(await isSealedWhole(ctx, part)) && !(await linkTwin(ctx, part, local))) continue;
    totals.logical += part.file.size;
    totals.reused += part.file.size;
    taken.add(part);
  }
  return taken;
}

/** Removes what is there if it is not whole and must not be written to: it is read-only, or it is another place's file, too. */
async function isSealedWhole({ signal }: Context, { file, path }: Part): Promise<boolean> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat?.isFile() || (stat.mode & OWNER_WRITES && stat.nlink === 1)) return false;
  if (stat.size === file.size && (await sha256File(path, signal)) === file.sha256) return true;
  rmSync(path);
  return false;
}

const OWNER_WRITES = 0o200;

async function linkTwin({ signal }: Context, { file, path, record }: Part, local: LocalChunks): Promise<boolean> {
  const twin = local.file(file.sha256);
  if (record.kind !== "revision" || !twin || !existsSync(twin) || statSync(twin).size !== file.size) return false;
  if ((await sha256File(twin, signal)) !== file.sha256) return false;
  rmSync(path, { recursive: true, force: true });
  linkSync(twin, path);
  return true;
}

async function fetchFile(fetch: Parameters<typeof fetchFiles>[0], { record, file, path }: Part): Promise<boolean> {
  // Whatever is in the way that is no file of ours is not written to.
  if (lstatSync(path, { throwIfNoEntry: false })?.isFile() === false) rmSync(path, { recursive: true });
  const begun = existsSync(path);
  const to: FileToFetch = { record, file, handle: await openSparse(path, file.size), begun };
  try {
    await fetchFiles(fetch, [to]);
    await to.handle.sync();
  } catch (error) {
    throw record.kind === "snapshot" ? orWithoutSnapshot(error) : error;
  } finally {
    await to.handle.close();
  }
  return begun;
}

const OF_THE_SNAPSHOT = new Set(["CHUNK_DAMAGED", "REGISTRY_OBJECT_MISSING", "REGISTRY_SHORT_READ", "UNTRUSTED"]);

/** Whoever can't mend the registry can still have the template: it boots. */
export function orWithoutSnapshot(error: unknown): unknown {
  if (!(error instanceof MvmError) || !OF_THE_SNAPSHOT.has(error.code)) return error;
  const { code, message, detail, hint, cause } = error;
  return new MvmError(code, message, {
    cause,
    hint: `${hint}; or pull it without snapshots, with --no-snapshot`,
    ...(detail === undefined ? {} : { detail }),
  });
}

/** A file that is new has holes where the record has zeros: they need not be read. */
async function requireDigest({ file, path, record }: Part, begun: boolean, signal: AbortSignal): Promise<void> {
  const found = begun ? await sha256File(path, signal) : await sha256OfChunks(path, file, record.chunkBytes, signal);
  if (found === file.sha256) return;
  rmSync(path, { force: true });
  throw new MvmError(
    "ARTIFACT_DAMAGED",
    `${file.file} of ${record.template} does not have the digest that the registry gives: SHA-256 ${found} instead of ${file.sha256}`,
    {
      hint: "nothing was published; pull again, and if it stays so, push the template again from a machine that has it whole",
    },
  );
}
