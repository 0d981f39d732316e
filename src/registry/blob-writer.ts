import { randomFillSync } from "node:crypto";
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
/** Of a push's first blobs: the less there is to send, the sooner it has to be on its way while the rest is compressed. */
const FIRST_BLOB_BYTES = 4 * 1024 * 1024;
/** Blobs that may be on their way while the next one is gathered. */
const IN_FLIGHT = 2;

function blobBytes(sentBytes: number): number {
  return Math.min(BLOB_BYTES, Math.max(FIRST_BLOB_BYTES, sentBytes / 2));
}

/** A place in a blob whose name, its own digest, is known only when it is whole. */
interface Pending {
  blob: string;
  readonly offset: number;
  readonly length: number;
}

/** Told of each blob before it is uploaded, with what is in it; false asks for another name. */
export type Announce = (blob: string, chunks: ReadonlyMap<string, ChunkPlace>) => Promise<boolean>;

/** Gathers frames and uploads them. */
export class BlobWriter {
  readonly #ctx: Context;
  readonly #store: Store;
  readonly #announce: Announce;
  #frames: Buffer[] = [];
  #bytes = 0;
  #sentBytes = 0;
  #pending = new Map<string, Pending>();
  #uploads: Promise<void>[] = [];

  constructor(ctx: Context, store: Store, announce: Announce) {
    this.#ctx = ctx;
    this.#store = store;
    this.#announce = announce;
  }

  /** Adds one chunk's frame. The place it returns names its blob only after `finish`. */
  async add(chunk: string, frame: Buffer): Promise<ChunkPlace> {
    const place: Pending = { blob: "", offset: this.#bytes, length: frame.length };
    this.#pending.set(chunk, place);
    this.#frames.push(frame);
    this.#bytes += frame.length;
    if (this.#bytes >= blobBytes(this.#sentBytes)) await this.#send();
    return place;
  }

  /** Sends what is left and waits until everything has arrived. */
  async finish(): Promise<void> {
    if (this.#bytes > 0) await this.#send();
    await Promise.all(this.#uploads);
  }

  async #send(): Promise<void> {
    const upload = this.#upload(this.#frames, this.#pending);
    this.#frames = [];
    this.#sentBytes += this.#bytes;
    this.#bytes = 0;
    this.#pending = new Map();
    upload.catch(() => {}); // awaited below, or in finish
    this.#uploads.push(upload);
    while (this.#uploads.length > IN_FLIGHT) await this.#uploads.shift();
  }

  async #upload(frames: Buffer[], chunks: ReadonlyMap<string, Pending>): Promise<void> {
    let body = Buffer.concat(frames);
    for (;;) {
      const digest = sha256(body);
      for (const place of chunks.values()) place.blob = digest;
      if (await this.#announce(digest, chunks)) {
        await this.#store.put(blobKey(digest), body, { sha256: digest }, this.#ctx.signal);
        return;
      }
      body = Buffer.concat([body, skippableFrame()]);
    }
  }
}

/** A frame that readers pass over (zstd's format, 3.1.2): it gives a blob another digest, and so another name. */
function skippableFrame(): Buffer {
  const frame = Buffer.alloc(24);
  frame.writeUInt32LE(0x184d2a50, 0);
  frame.writeUInt32LE(16, 4);
  randomFillSync(frame, 8);
  return frame;
}
