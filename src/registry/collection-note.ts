import { randomUUID } from "node:crypto";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { COLLECTIONS } from "./keys.ts";
import { ageFromNow, RELIABLE_NOTE_MS } from "./note-age.ts";
import { renderRecord } from "./records.ts";
import { type Store, takeBack } from "./store.ts";

/** How often a collection looks whether its note is still there. */
const LOOK_MS = 60_000;

/**
 * A collection's own object in the registry while it is under way: which blobs it will delete. A push that finds a blob
 * there does not rely on it; see PushJournal.
 */
export class CollectionNote implements AsyncDisposable {
  readonly key = `${COLLECTIONS}${randomUUID()}.json`;
  readonly #ctx: Context;
  readonly #store: Store;
  #blobs: readonly string[] = [];
  #age = ageFromNow();

  private constructor(ctx: Context, store: Store) {
    this.#ctx = ctx;
    this.#store = store;
  }

  static async open(ctx: Context, store: Store): Promise<CollectionNote> {
    const note = new CollectionNote(ctx, store);
    await note.announce([]);
    return note;
  }

  /** The time by the store's clock, which tells how old objects are; ours does not. */
  async storeTime(): Promise<number> {
    return (await this.#store.head(this.key, this.#ctx.signal))?.modifiedMs ?? Date.now();
  }

  /** Says which blobs will be deleted. A push that begins from here on will not rely on these. */
  async announce(blobs: readonly string[]): Promise<void> {
    const age = ageFromNow();
    this.#blobs = blobs;
    const record = { version: 1, kind: "collection", blobs: [...this.#blobs] };
    await this.#store.put(this.key, renderRecord(record), {}, this.#ctx.signal);
    this.#age = age;
  }

  /**
   * To be asked before each deletion: whether pushes still know what is to be deleted. Costs a request or two a minute.
   * @throws MvmError `COLLECTION_LAPSED` when this process slept for so long that others took the note for abandoned
   */
  async requireHeld(): Promise<void> {
    if (this.#age() < LOOK_MS) return;
    const isThere = (await this.#store.head(this.key, this.#ctx.signal)) !== undefined;
    if (!isThere || this.#age() > RELIABLE_NOTE_MS) throw lapsed();
    await this.announce(this.#blobs);
    // It may have slept just now, too, and brought back what was removed meanwhile.
    if (this.#age() > RELIABLE_NOTE_MS) throw lapsed();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await takeBack(this.#store, this.key);
  }
}

function lapsed(): MvmError {
  return new MvmError(
    "COLLECTION_LAPSED",
    "this collection was held up for so long that pushes no longer reckon with it",
    {
      hint: "what it removed nobody used, and the rest stays; run mvmctl registry gc again",
    },
  );
}
