import { randomUUID } from "node:crypto";
import type { Context } from "../core/context.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import type { TemplateName } from "../core/names.ts";
import { forEachParallel } from "../core/parallel.ts";
import { blobKey, COLLECTIONS, PUSHES } from "./keys.ts";
import { type ChunkPlace, forgetMissingBlobs, type KnownChunks } from "./known-chunks.ts";
import { ageFromNow, RELIABLE_NOTE_MS } from "./note-age.ts";
import { MAX_RECORD_BYTES } from "./record-limits.ts";
import { type PushRecord, parseCollectionRecord, parsePushRecord, renderRecord } from "./records.ts";
import { listAll, type ObjectInfo, type Store } from "./store.ts";

const PARALLEL = 8;
/** A collection has to be able to read the journal: of a larger push, what follows is sent anew if it is broken off. */
const MAX_NOTED_CHUNKS = 100_000;

/**
 * A push's own object in the registry while it is under way. It does two things: it keeps a collection from deleting blobs
 * that the push relies on before a record names them, and it says what was uploaded, so that the next push after one that
 * was killed sends only what is missing.
 *
 * A push first writes which blobs it relies on and then looks for collections; a collection first writes which blobs it will
 * delete and then looks for pushes. So whichever way they meet, one sees the other. A journal that was not written for an hour is
 * dead for a collection; so a push that may have slept for long looks again before it writes what names the blobs, and after.
 */
export class PushJournal {
  readonly #ctx: Context;
  readonly #store: Store;
  readonly #key = `${PUSHES}${randomUUID()}.json`;
  readonly #record: PushRecord;
  #writing: Promise<unknown> = Promise.resolve();
  #age = ageFromNow();
  /** Whether there was a time in which a collection may have taken this push for dead. */
  #lapsed = false;

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

  /**
   * To be asked before each record is written, and before the tag is moved: whether the blobs that the records name are there
   * to stay. Costs nothing while the push goes on; one that was held up asks for each of them.
   * @throws MvmError `PUSH_LAPSED`
   */
  async requireHeld(blobs: ReadonlySet<string>): Promise<void> {
    if (!this.#lapsed && this.#age() < RELIABLE_NOTE_MS) return;
    await this.#write();
    this.#lapsed = false;
    const doomed = await blobsToBeDeleted(this.#ctx, this.#store);
    await forEachParallel(blobs, PARALLEL, async (blob) => {
      if (doomed.has(blob) || !(await this.#store.head(blobKey(blob), this.#ctx.signal))) throw lapsed(blobKey(blob));
    });
  }

  /** Ends a push whose records are written. That is done then, also where the journal can't be removed: it is in nobody's way. */
  async close(): Promise<void> {
    try {
      await this.#store.delete(this.#key, this.#ctx.signal);
    } catch (error) {
      this.#ctx.signal.throwIfAborted();
      const text = `everything is pushed, but ${this.#key} could not be removed: ${messageOf(error)}; \`mvmctl registry gc\` removes it when it is old`;
      this.#ctx.report({ kind: "note", text });
    }
  }

  /** One at a time, so that the last one written is the newest. */
  #write(): Promise<unknown> {
    const write = async () => {
      this.#lapsed ||= this.#age() > RELIABLE_NOTE_MS;
      const age = ageFromNow();
      await this.#store.put(this.#key, renderRecord(this.#record), {}, this.#ctx.signal);
      this.#age = age;
    };
    this.#writing = this.#writing.then(write);
    return this.#writing;
  }
}

/** The pushes that are under way, and the journals of those that nobody came back for. @throws MvmError `REGISTRY_CORRUPT` */
export async function readPushes(
  ctx: Context,
  store: Store,
  isAbandoned: (journal: ObjectInfo) => boolean,
): Promise<{ readonly live: readonly PushRecord[]; readonly dead: readonly ObjectInfo[] }> {
  const journals = await listAll(store, PUSHES, ctx.signal);
  const live: PushRecord[] = [];
  for (const journal of journals) {
    if (isAbandoned(journal)) continue;
    const object = await store.get(journal.key, MAX_RECORD_BYTES, ctx.signal);
    if (object) live.push(parsePushRecord(object.bytes, journal.key));
  }
  return { live, dead: journals.filter(isAbandoned) };
}

function lapsed(blob: string): MvmError {
  return new MvmError(
    "PUSH_LAPSED",
    `this push was held up for so long that a collection of garbage removed what it relies on: ${blob}`,
    { hint: "push again: what is still there is not sent again" },
  );
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
