import { open } from "node:fs/promises";
import { join } from "node:path";
import { CHUNK_BYTES, chunkLength, forEachChunk } from "../core/chunks.ts";
import type { Context } from "../core/context.ts";
import { sha256 as digestOf } from "../core/digests.ts";
import { readChunkIndex } from "../template/chunk-index.ts";
import { artifactsOf, type FileDigest } from "../template/revision.ts";
import { listRevisions } from "../template/revisions.ts";
import { filesOf, readSnapshots } from "../template/snapshots.ts";
import { templateNames } from "../template/store.ts";
import type { RemoteChunk, RemoteFile } from "./records.ts";

/** Chunks of the revisions and snapshots that are on this machine, of whatever template, and of what a pull has fetched already. */
export class LocalChunks {
  readonly #places = new Map<string, { path: string; position: number; length: number }>();
  readonly #files = new Map<string, string>();

  /** Reads the chunk indexes; the files are read when a chunk is wanted. */
  static find({ paths }: Context): LocalChunks {
    const chunks = new LocalChunks();
    for (const name of templateNames(paths)) {
      for (const { id, directory, manifest } of listRevisions(paths, name)) {
        chunks.#add(directory, artifactsOf(manifest));
        for (const stored of readSnapshots(paths.snapshots(name, id)))
          chunks.#add(stored.directory, filesOf(stored.snapshot));
      }
    }
    return chunks;
  }

  #add(directory: string, digests: readonly FileDigest[]): void {
    for (const [file, { size, sha256, chunks }] of Object.entries(readChunkIndex(directory, digests))) {
      const path = join(directory, file);
      this.#files.set(sha256, path);
      forEachChunk(chunks, (chunk: string, position) => {
        this.#places.set(chunk, { path, position, length: chunkLength(size, position) });
      });
    }
  }

  /** Notes what was fetched: the memory of a VM holds much of what is in its image's files. */
  addFetched(path: string, { size, chunks }: RemoteFile, chunkBytes: number): void {
    if (chunkBytes !== CHUNK_BYTES) return;
    forEachChunk(chunks, ([sha256]: RemoteChunk, position) => {
      if (!this.#places.has(sha256)) this.#places.set(sha256, { path, position, length: chunkLength(size, position) });
    });
  }

  /** The path of a whole file with this digest. It is to be checked before it is used. */
  file(sha256: string): string | undefined {
    return this.#files.get(sha256);
  }

  has(sha256: string): boolean {
    return this.#places.has(sha256);
  }

  /** A chunk's content, or undefined where it is not here, or no longer what it was. */
  async read(sha256: string): Promise<Buffer | undefined> {
    const place = this.#places.get(sha256);
    if (!place) return undefined;
    try {
      await using file = await open(place.path, "r");
      const content = Buffer.allocUnsafe(place.length);
      const { bytesRead } = await file.read(content, 0, place.length, place.position * CHUNK_BYTES);
      return bytesRead === place.length && digestOf(content) === sha256 ? content : undefined;
    } catch {
      return undefined; // the registry has it too
    }
  }
}
