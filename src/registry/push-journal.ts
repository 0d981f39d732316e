import { randomUUID } from "node:crypto";
import type { Context } from "../core/context.ts";
import type { TemplateName } from "../core/names.ts";
import { COLLECTIONS, PUSHES } from "./keys.ts";
import { type ChunkPlace, forgetMissingBlobs, type KnownChunks } from "./known-chunks.ts";
import { MAX_RECORD_BYTES } from "./record-limits.ts";
import { type PushRecord, parseCollectionRecord, renderRecord } from "./records.ts";
import type { Store } from "./store.ts";

/** A collection has to be able to read the journal: of a larger push, what follows is sent anew if it is broken off. */
const MAX_NOTED_CHUNKS = 100_000;

/**
 * A push's own object in the registry while it is under way. It does two things: it keeps a collection from deleting blobs
 * that the push relies on before a record names them, and it says what was uploaded, so that the next push after one that
 * was killed sends only what is missing.
 *
 * A push first writes which blobs it relies on and then looks for collections; a collection first writes which blobs it will
 * delete and then looks for pushes. So whichever way they meet, one sees the other.
 */
export class PushJournal {
  readonly #ctx: Context;
  readonly #store: Store;
  readonly #key = `${PUSHES}${randomUUID()}.json`;
  readonly #record: PushRecord;
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(ctx: Context, store: Store, record: PushRecord) {
    this.#ctx = ctx;
    this.#store = store;
    this.#record = record;
  }

  /** Begins a push that relies on these chunks, and forgets those that are not there to stay. */
  static async open(ctx: Context, store: Store, name: TemplateName, known: KnownChunks): Promise<PushJournal> {
    const blobs = [...new Set([...known.values()].map(({ blob }) => blob))];
    const journal = new PushJournal(ctx, store, { version: 1, kind: "push", template: name, blobs, chunks: [] });
    await journal.#write();
    const doomed = await blobsToBeDeleted(ctx, store);
    for (const [chunk, { blob }] of known) if (doomed.has(blob)) known.delete(chunk);
    await forgetMissingBlobs(ctx, store, known);
    return journal;
  }

  /**
   * Notes a blob that is about to be uploaded. False if a collection is about to delete one of that name: then it has to
   * get another.
   */
  async announce(blob: string, chunks: ReadonlyMap<string, ChunkPlace>): Promise<boolean> {
    const index = this.#record.blobs.push(blob) - 1;
    if (this.#record.chunks.length + chunks.size <= MAX_NOTED_CHUNKS)
      for (const [sha256, { offset, length }] of chunks) this.#record.chunks.push([sha256, index, offset, length]);
    await this.#write();
    return !(await blobsToBeDeleted(this.#ctx, this.#store)).has(blob);
  }

  /** Ends a push whose records are written. */
  async close(): Promise<void> {
    await this.#store.delete(this.#key, this.#ctx.signal);
  }

  /** One at a time, so that the last one written is the newest. */
  #write(): Promise<unknown> {
    const write = () => this.#store.put(this.#key, renderRecord(this.#record), {}, this.#ctx.signal);
    this.#writing = this.#writing.then(write);
    return this.#writing;
  }
}

async function blobsToBeDeleted(ctx: Context, store: Store): Promise<Set<string>> {
  const doomed = new Set<string>();
  for await (const { key } of store.list(COLLECTIONS, ctx.signal)) {
    const object = await store.get(key, MAX_RECORD_BYTES, ctx.signal);
    if (!object) continue;
    for (const blob of parseCollectionRecord(object.bytes, key).blobs) doomed.add(blob);
  }
  return doomed;
}
