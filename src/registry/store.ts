/** A place where registry objects are: a bucket, or a directory. Both keep the promises of test/contract/store.test.ts. */
export interface Store {
  /** For people and messages: `s3://bucket/prefix on host`, or a directory's path. Holds no secrets. */
  readonly description: string;
  /** Stable and unique for the place, so that what is known about it can be stored under this text. */
  readonly identity: string;
  /**
   * A whole small object, or undefined where there is none.
   * @throws MvmError `REGISTRY_OBJECT_TOO_LARGE` as soon as it turns out to have more than `maxBytes`
   */
  get(key: string, maxBytes: number, signal: AbortSignal): Promise<StoredObject | undefined>;
  /**
   * Exactly `length` bytes of an object from `offset`.
   * @throws MvmError `REGISTRY_OBJECT_MISSING`, `REGISTRY_SHORT_READ` when the object is too short, or a body that ends early
   *   again and again
   */
  getRange(key: string, offset: number, length: number, signal: AbortSignal): Promise<Buffer>;
  /**
   * Writes a whole object: a reader sees the old one or the new one.
   * @throws MvmError `REGISTRY_CONFLICT` when the condition does not hold
   */
  put(key: string, body: Uint8Array, options: PutOptions, signal: AbortSignal): Promise<{ readonly etag: string }>;
  /** Size and time of an object, or undefined where there is none. */
  head(key: string, signal: AbortSignal): Promise<ObjectInfo | undefined>;
  /** Removes an object; one that is not there is no error. */
  delete(key: string, signal: AbortSignal): Promise<void>;
  /** Every object whose key begins with `prefix`, in the order of the keys. */
  list(prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo>;
}

export interface StoredObject {
  readonly bytes: Buffer;
  readonly etag: string;
}

export interface ObjectInfo {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  /** Milliseconds since 1970, by the store's clock. */
  readonly modifiedMs: number;
}

export interface PutOptions {
  /** SHA-256 of the body, if it is known already: 64 hexadecimal digits. */
  readonly sha256?: string;
  /** Write only if there is no such object, or only if it is still the one with this etag. */
  readonly condition?: { readonly ifAbsent: true } | { readonly ifMatch: string };
}

/** All that a list finds. */
export async function listAll(store: Store, prefix: string, signal: AbortSignal): Promise<ObjectInfo[]> {
  return await Array.fromAsync(store.list(prefix, signal));
}

/** What a command that was stopped may still take: it ends within two seconds. */
const TAKE_BACK_MS = 1500;

/**
 * Removes what a command put into the store for its own time, also when it was stopped: its own signal would refuse that. Where it
 * can't be removed, others pass it over when it is old.
 */
export async function takeBack(store: Store, key: string): Promise<void> {
  await store.delete(key, AbortSignal.timeout(TAKE_BACK_MS)).catch(() => {});
}
