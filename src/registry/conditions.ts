import { randomBytes } from "node:crypto";
import { join } from "node:path";
import * as v from "valibot";
import type { Context } from "../core/context.ts";
import { sha256 } from "../core/digests.ts";
import { type DocumentKind, readDocument, writeDocument } from "../core/documents.ts";
import { MvmError } from "../core/errors.ts";
import { ensureDirectory } from "../core/files.ts";
import { PROBES } from "./keys.ts";
import type { PutOptions, Store } from "./store.ts";

/** Which conditions of a put a store keeps. Some S3 servers ignore them, and write whatever is there. */
export interface Conditions {
  readonly ifAbsent: boolean;
  readonly ifMatch: boolean;
}

const KnownSchema = v.strictObject({
  version: v.literal(1),
  /** The store's identity, for people who look. */
  store: v.string(),
  checkedAt: v.pipe(v.string(), v.isoTimestamp()),
  ifAbsent: v.boolean(),
  ifMatch: v.boolean(),
});
const KnownDocument: DocumentKind<v.InferOutput<typeof KnownSchema>> = {
  title: "note about a registry",
  version: 1,
  schema: KnownSchema,
};

/** A server may be updated, or replaced by another at the same address. */
const KNOWN_FOR_MS = 7 * 24 * 3600 * 1000;

/**
 * Whether a store keeps the conditions of a put: tried out with a small object, and known for a week.
 * @throws MvmError of the store, when the probe can't be written
 */
export async function supportsConditions(ctx: Context, store: Store): Promise<Conditions> {
  const path = join(ctx.paths.cache, "registry", `${sha256(store.identity).slice(0, 32)}.json`);
  const known = readKnown(path);
  if (known && Math.abs(Date.now() - Date.parse(known.checkedAt)) < KNOWN_FOR_MS) return known;
  const conditions = await probeConditions(store, ctx.signal);
  ensureDirectory(join(ctx.paths.cache, "registry"));
  writeDocument(KnownDocument, path, {
    store: store.identity,
    checkedAt: new Date().toISOString(),
    ...conditions,
  });
  return conditions;
}

/** A note that can't be read is made again. */
function readKnown(path: string): v.InferOutput<typeof KnownSchema> | undefined {
  try {
    return readDocument(KnownDocument, path);
  } catch (error) {
    if (error instanceof MvmError) return undefined;
    throw error;
  }
}

/** A key of its own for a probe; whoever lists the registry's other keys does not see it. */
export function probeKey(): string {
  return `${PROBES}${randomBytes(16).toString("hex")}`;
}

/** Asks the store itself, with small objects that are gone afterwards. */
export async function probeConditions(store: Store, signal: AbortSignal): Promise<Conditions> {
  return { ifAbsent: await keepsIfAbsent(store, signal), ifMatch: await keepsIfMatch(store, signal) };
}

function keepsIfAbsent(store: Store, signal: AbortSignal): Promise<boolean> {
  return withProbe(store, signal, async (put) => {
    await put("first");
    return isRefused(put("second", { ifAbsent: true }));
  });
}

function keepsIfMatch(store: Store, signal: AbortSignal): Promise<boolean> {
  return withProbe(store, signal, async (put) => {
    const { etag: old } = await put("first");
    const { etag: current } = await put("second");
    return (await isRefused(put("third", { ifMatch: old }))) && !(await isRefused(put("fourth", { ifMatch: current })));
  });
}

type Put = (text: string, condition?: PutOptions["condition"]) => Promise<{ readonly etag: string }>;

async function withProbe<T>(store: Store, signal: AbortSignal, work: (put: Put) => Promise<T>): Promise<T> {
  const key = probeKey();
  try {
    return await work((text, condition) => store.put(key, Buffer.from(text), condition ? { condition } : {}, signal));
  } finally {
    await store.delete(key, signal).catch(() => {}); // what went wrong before says more
  }
}

/** Whether a put was refused for its condition; a store that does not know conditions at all does not keep them. */
async function isRefused(put: Promise<unknown>): Promise<boolean> {
  try {
    await put;
    return false;
  } catch (error) {
    if (!(error instanceof MvmError)) throw error;
    if (error.code === "REGISTRY_CONFLICT") return true;
    if (error.code === "REGISTRY_UNSUPPORTED" || error.code === "REGISTRY_REFUSED") return false;
    throw error;
  }
}
