import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { type RevisionId, shortRevision, type TemplateName } from "../core/names.ts";
import { claimsOf, tagKey } from "./keys.ts";
import { MAX_TAG_BYTES, parseTagRecord, refused, renderRecord, type TagRecord } from "./records.ts";
import { type Store, takeBack } from "./store.ts";

/** A tag as it was read: `etag` is what a move of it is conditional on. */
export interface FoundTag {
  readonly record: TagRecord;
  readonly etag: string;
}

/** @throws MvmError `REGISTRY_CORRUPT`, `NEWER_VERSION` */
export async function readTag(
  ctx: Context,
  store: Store,
  name: TemplateName,
  tag: string,
): Promise<FoundTag | undefined> {
  const key = tagKey(name, tag);
  const object = await store.get(key, MAX_TAG_BYTES, ctx.signal);
  if (!object) return undefined;
  // What it meant is not known, and so not what a push would move it back from: that is for somebody to decide.
  const hint = `remove it, then push it again: mvmctl registry delete ${name}:${tag}`;
  const record = parseTagRecord(object.bytes, key, hint);
  if (record.template !== name || record.tag !== tag)
    throw refused(key, `it is the tag ${record.tag} of ${record.template}`, hint);
  return { record, etag: object.etag };
}

/**
 * A tag that would go back to an older build is most likely a slip, or somebody's attack.
 * @throws MvmError `TAG_ROLLBACK`
 */
export function refuseRollback(
  tag: string,
  from: Pick<TagRecord, "revision" | "builtAt"> | undefined,
  to: Pick<TagRecord, "revision" | "builtAt">,
): void {
  if (!from || from.revision === to.revision || Date.parse(to.builtAt) >= Date.parse(from.builtAt)) return;
  const [older, newer] = [to, from].map(({ revision }) => shortRevision(revision as RevisionId));
  throw new MvmError(
    "TAG_ROLLBACK",
    `the tag '${tag}' would go back from ${newer}, built ${from.builtAt}, to ${older}, built ${to.builtAt}`,
    { hint: "if that is meant, say so with --allow-rollback" },
  );
}

export function isSigned(tag: TagRecord | undefined): boolean {
  return (tag?.signatures.length ?? 0) > 0;
}

/**
 * Whoever trusts certain keys takes a signed tag only: one that lost its signature is lost to them.
 * @throws MvmError `TAG_SIGNED`
 */
export function refuseUnsigned(from: TagRecord | undefined): void {
  if (!from || !isSigned(from)) return;
  const keys = from.signatures.map(({ key }) => key).join(", ");
  throw new MvmError(
    "TAG_SIGNED",
    `the tag '${from.tag}' of ${from.template} is signed, by ${keys}: this push is not`,
    {
      hint: "sign it, with --sign or --key FILE; or say with --unsigned that the tag is to lose its signature",
    },
  );
}

/**
 * Moves a tag from what was read to `record`. Of two pushes that move it at once, one does.
 * @throws MvmError `TAG_MOVED` when somebody else moved it since
 */
export async function moveTag(
  ctx: Context,
  store: Store,
  found: FoundTag | undefined,
  record: TagRecord,
  conditional: boolean,
): Promise<void> {
  const name = record.template as TemplateName;
  const key = tagKey(name, record.tag);
  if (conditional) {
    const condition = found ? { ifMatch: found.etag } : { ifAbsent: true as const };
    try {
      await store.put(key, renderRecord(record), { condition }, ctx.signal);
    } catch (error) {
      if (!(error instanceof MvmError) || error.code !== "REGISTRY_CONFLICT") throw error;
      const now = await readTag(ctx, store, name, record.tag);
      // The answer to a write that arrived can be lost: then the second try finds the first one's work.
      if (now && renderRecord(now.record).equals(renderRecord(record))) return;
      throw movedBySomebody(record, now);
    }
    return;
  }
  await withClaim(ctx, store, record, async () => {
    const now = await readTag(ctx, store, name, record.tag);
    if (now?.etag !== found?.etag) throw movedBySomebody(record, now);
    await store.put(key, renderRecord(record), {}, ctx.signal);
  });
}

function movedBySomebody({ template, tag }: TagRecord, now: FoundTag | undefined): MvmError {
  const where = now ? `: it is ${shortRevision(now.record.revision as RevisionId)} now` : "";
  return new MvmError("TAG_MOVED", `another push moved the tag '${tag}' of ${template} meanwhile${where}`, {
    hint: "what was pushed is in the registry; pull and look, then push again if yours should be the one",
  });
}

/** A claim of somebody who is gone is passed over when it is this old, by the store's clock. */
const CLAIM_MS = 60_000;
const CLAIM_POLL_MS = 100;

/**
 * For stores that ignore conditions. Everybody writes a claim and then looks: who is alone goes ahead. Of several, the one
 * with the smallest name waits for those who may have gone ahead, and all others give up; so no two go ahead at once.
 */
async function withClaim(ctx: Context, store: Store, record: TagRecord, move: () => Promise<void>): Promise<void> {
  const claims = claimsOf(record.template as TemplateName, record.tag);
  const own = `${claims}${randomUUID()}.json`;
  try {
    // Also when this is stopped it may have been written.
    await store.put(own, renderRecord({ kind: "claim" }), {}, ctx.signal);
    const since = monotonicMs();
    for (;;) {
      const others = await livingClaims(ctx, store, claims, own, monotonicMs() - since);
      if (others.length === 0) break;
      if (others.some((key) => key < own)) throw movedBySomebody(record, undefined);
      await delay(CLAIM_POLL_MS, undefined, { signal: ctx.signal });
    }
    await move();
  } finally {
    await takeBack(store, own);
  }
}

async function livingClaims(
  ctx: Context,
  store: Store,
  claims: string,
  own: string,
  ownAgeMs: number,
): Promise<string[]> {
  const all = [];
  for await (const claim of store.list(claims, ctx.signal)) all.push(claim);
  const now = (all.find(({ key }) => key === own)?.modifiedMs ?? Date.now()) + ownAgeMs;
  return all.filter(({ key, modifiedMs }) => key !== own && now - modifiedMs < CLAIM_MS).map(({ key }) => key);
}
