import type { Context } from "../core/context.ts";
import { sha256 } from "../core/digests.ts";
import { blobKey } from "./keys.ts";
import type { ChunkPlace } from "./known-chunks.ts";
import type { Store } from "./store.ts";

/**
 * Frames are gathered into blobs of about this size and each is sent with one request: few objects, nothing to clean up
 * when a push is broken off, and a blob that failed is sent again from memory.
 */
const BLOB_BYTES = 16 * 1024 * 1024;
/** Blobs that may be on their way while the next one is gathered. */
const IN_FLIGHT = 2;

/** A place in a blob whose name, its own digest, is known only when it is whole. */
interface Pending {
  blob: string;
  readonly offset: number;
  readonly length: number;
}

/** Gathers frames and uploads them. `onUploaded` is told of each blob that has arrived, with what is in it. */
export class BlobWriter {
  readonly #ctx: Context;
  readonly #store: Store;
  readonly #onUploaded: (blob: string, chunks: ReadonlyMap<string, ChunkPlace>) => Promise<void>;
  #frames: Buffer[] = [];
  #bytes = 0;
  #pending = new Map<string, Pending>();
  #uploads: Promise<void>[] = [];

  constructor(
    ctx: Context,
    store: Store,
    onUploaded: (blob: string, chunks: ReadonlyMap<string, ChunkPlace>) => Promise<void>,
  ) {
    this.#ctx = ctx;
    this.#store = store;
    this.#onUploaded = onUploaded;
  }

  /** Adds one chunk's frame. The place it returns names its blob only after `finish`. */
  async add(chunk: string, frame: Buffer): Promise<ChunkPlace> {
    const place: Pending = { blob: "", offset: this.#bytes, length: frame.length };
    this.#pending.set(chunk, place);
    this.#frames.push(frame);
    this.#bytes += frame.length;
    if (this.#bytes >= BLOB_BYTES) await this.#send();
    return place;
  }

  /** Sends what is left and waits until everything has arrived. */
  async finish(): Promise<void> {
    if (this.#bytes > 0) await this.#send();
    await Promise.all(this.#uploads);
  }

  async #send(): Promise<void> {
    const body = Buffer.concat(this.#frames);
    const digest = sha256(body);
    const chunks = this.#pending;
    for (const place of chunks.values()) place.blob = digest;
    this.#frames = [];
    this.#bytes = 0;
    this.#pending = new Map();
    const upload = this.#store
      .put(blobKey(digest), body, { sha256: digest }, this.#ctx.signal)
      .then(() => this.#onUploaded(digest, chunks));
    upload.catch(() => {}); // awaited below, or in finish
    this.#uploads.push(upload);
    while (this.#uploads.length > IN_FLIGHT) await this.#uploads.shift();
  }
}
