import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { parseTemplateKey } from "./keys.ts";
import {
  type ContentRecord,
  MAX_RECORD_BYTES,
  parseRevisionRecord,
  parseSnapshotRecord,
  renderRecord,
} from "./records.ts";
import { addSignature, contentToSign } from "./signatures.ts";
import type { Store } from "./store.ts";

/**
 * Writes a revision's or a snapshot's record. One that is there and says the same of the same content is kept with its
 * signatures: where the chunks are may differ between pushes, and what was signed does not.
 */
export async function putContentRecord(ctx: Context, store: Store, key: string, record: ContentRecord): Promise<void> {
  const earlier = await readEarlier(ctx, store, key, record);
  const merged = earlier ? withSignaturesOf(earlier, record) : record;
  if (earlier && renderRecord(earlier).equals(renderRecord(merged))) return;
  await store.put(key, renderRecord(merged), {}, ctx.signal);
}

function withSignaturesOf(earlier: ContentRecord, record: ContentRecord): ContentRecord {
  // When it was built is the first builder's to say: an equal build elsewhere is the same revision.
  const dated =
    record.kind === "revision" && earlier.kind === "revision" ? { ...record, builtAt: earlier.builtAt } : record;
  if (contentToSign(dated) !== contentToSign(earlier)) return record;
  return { ...dated, signatures: record.signatures.reduce(addSignature, [...earlier.signatures]) };
}

async function readEarlier(
  ctx: Context,
  store: Store,
  key: string,
  { template, revision }: ContentRecord,
): Promise<ContentRecord | undefined> {
  const object = await store.get(key, MAX_RECORD_BYTES, ctx.signal);
  if (!object) return undefined;
  const parsed = parseTemplateKey(key);
  try {
    return parsed?.kind === "snapshot"
      ? parseSnapshotRecord(object.bytes, { template, revision }, parsed.key, key).record
      : parseRevisionRecord(object.bytes, template as TemplateName, revision as RevisionId, key).record;
  } catch (error) {
    // A damaged record is what a push mends; one of a newer mvmctl is not ours to replace.
    if (error instanceof MvmError && error.code === "REGISTRY_CORRUPT") return undefined;
    throw error;
  }
}
