import { join } from "node:path";
import * as v from "valibot";
import { ChunkListSchema, type FileIndex, indexFile, Sha256Schema } from "../core/chunks.ts";
import { type DocumentKind, readDocument, writeDocument } from "../core/documents.ts";
import { sweepStaging } from "../core/staging.ts";
import type { FileDigest } from "./revision.ts";

/**
 * chunks.json, beside a revision's or a snapshot's files: what each chunk of them is. Made when the files are, which reads
 * them anyway; so a push reads only what is new, a pull finds what is here, and `verify` can say where a file is damaged.
 * It holds nothing that can't be made again from the files.
 */
const ChunkIndexSchema = v.strictObject({
  version: v.literal(1),
  files: v.record(
    v.string(),
    v.strictObject({ size: v.pipe(v.number(), v.integer()), sha256: Sha256Schema, chunks: ChunkListSchema }),
  ),
});
const ChunkIndexDocument: DocumentKind<v.InferOutput<typeof ChunkIndexSchema>> = {
  title: "chunk index",
  version: 1,
  schema: ChunkIndexSchema,
};

const CHUNK_INDEX = "chunks.json";

/** By file name. */
export type ChunkIndex = Readonly<Record<string, FileIndex>>;

export function writeChunkIndex(directory: string, files: ChunkIndex): void {
  writeDocument(ChunkIndexDocument, join(directory, CHUNK_INDEX), { files: { ...files } });
}

/** What is known about a directory's files, as far as it is about the files that these digests are of. Never throws for a damaged index. */
export function readChunkIndex(directory: string, digests: readonly FileDigest[]): ChunkIndex {
  const found: Record<string, FileIndex> = {};
  const stored = tryRead(directory);
  for (const { file, size, sha256 } of digests) {
    const index = stored[file];
    if (index?.sha256 === sha256 && index.size === size) found[file] = index;
  }
  return found;
}

function tryRead(directory: string): ChunkIndex {
  try {
    return readDocument(ChunkIndexDocument, join(directory, CHUNK_INDEX))?.files ?? {};
  } catch {
    return {}; // it can be made again
  }
}

/** The index of all of these files: read, or made now where it is missing (an older mvmctl made none). */
export async function ensureChunkIndex(
  directory: string,
  digests: readonly FileDigest[],
  signal: AbortSignal,
): Promise<ChunkIndex> {
  const known = readChunkIndex(directory, digests);
  const missing = digests.filter(({ file }) => !known[file]);
  if (missing.length === 0) return known;
  sweepStaging(directory);
  const files: Record<string, FileIndex> = { ...known };
  for (const { file } of missing) files[file] = await indexFile(join(directory, file), signal);
  writeChunkIndex(directory, files);
  return files;
}
