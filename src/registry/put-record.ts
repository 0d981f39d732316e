import type { Context } from "../core/context.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { parseTemplateKey } from "./keys.ts";
import {
  type ContentRecord,
  isDamagedRecord,
  MAX_RECORD_BYTES,
  parseRevisionRecord,
  parseSnapshotRecord,
  renderRecord,
} from "./records.ts";
import { addSignature, contentToSign, flakeToSign, isFlakeSigned, type SigningKey, signText } from "./signatures.ts";
import type { Store } from "./store.ts";

/**
 * Writes a revision's or a snapshot's record, signed if there is a key. One that is there and says the same of the same
 * content is kept with its signatures: where the chunks are may differ between pushes, and what was signed does not.
 */
export async function putContentRecord(
  ctx: Context,
  store: Store,
  key: string,
  record: ContentRecord,
  signingKey: SigningKey | undefined,
): Promise<void> {
  const earlier = await readEarlier(ctx, store, key, record);
  const merged = signed(earlier ? mergedWith(earlier, record, signingKey) : record, record, signingKey);
  if (earlier && renderRecord(earlier).equals(renderRecord(merged))) return;
  await store.put(key, renderRecord(merged), {}, ctx.signal);
}

function mergedWith(earlier: ContentRecord, record: ContentRecord, signingKey: SigningKey | undefined): ContentRecord {
  if (contentToSign(record) !== contentToSign(earlier)) return record;
  const { signatures } = earlier;
  if (record.kind !== "revision" || earlier.kind !== "revision") return { ...record, signatures };
  // When it was built is the first builder's to say: an equal build elsewhere is the same revision.
  const dated = { ...record, builtAt: earlier.builtAt, signatures };
  // A flake that somebody else signed stays: with ours in its place, that signature would be over something else.
  const isKept = isFlakeSigned(earlier, ({ key }) => key !== signingKey?.publicKey);
  return isKept && earlier.flake !== undefined ? { ...dated, flake: earlier.flake } : dated;
}

/** Signs what is written, but of the flake only what this machine knows itself: a registry's word for it is not signed. */
function signed(merged: ContentRecord, ours: ContentRecord, signingKey: SigningKey | undefined): ContentRecord {
  if (!signingKey) return merged;
  const withFlake = flakeToSign(merged);
  const text = withFlake !== undefined && withFlake === flakeToSign(ours) ? withFlake : contentToSign(merged);
  return { ...merged, signatures: addSignature(merged.signatures, signText(text, signingKey)) };
}

async function readEarlier(
  ctx: Context,
  store: Store,
  key: string,
  { template, revision }: ContentRecord,
): Promise<ContentRecord | undefined> {
  const parsed = parseTemplateKey(key);
  try {
    const object = await store.get(key, MAX_RECORD_BYTES, ctx.signal);
    if (!object) return undefined;
    return parsed?.kind === "snapshot"
      ? parseSnapshotRecord(object.bytes, { template, revision }, parsed.key, key).record
      : parseRevisionRecord(object.bytes, template as TemplateName, revision as RevisionId, key).record;
  } catch (error) {
    // A damaged record is what a push mends; one of a newer mvmctl is not ours to replace.
    if (isDamagedRecord(error)) return undefined;
    throw error;
  }
}
