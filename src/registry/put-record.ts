import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { recordKey } from "./keys.ts";
import { readAnyRecord } from "./known-chunks.ts";
import { requireReadable } from "./record-limits.ts";
import { type ContentRecord, isDamagedRecord, renderRecord, type Signature, titleOf } from "./records.ts";
import {
  builtToSign,
  contentToSign,
  flakeToSign,
  isFlakeSigned,
  isTimeSigned,
  type SigningKey,
  withSignatures,
} from "./signatures.ts";
import type { Store } from "./store.ts";

/**
 * Writes a revision's or a snapshot's record, signed if there is a key. One that is there and says the same of the same
 * content is kept with its signatures: where the chunks are may differ between pushes, and what was signed does not.
 */
export async function putContentRecord(
  ctx: Context,
  store: Store,
  record: ContentRecord,
  signingKey: SigningKey | undefined,
): Promise<void> {
  const key = recordKey(record);
  const earlier = await readEarlier(ctx, store, key);
  const merged = signed(earlier ? mergedWith(earlier, record, signingKey) : record, record, signingKey);
  const bytes = renderRecord(merged);
  if (earlier && renderRecord(earlier).equals(bytes)) return;
  requireReadable(bytes, titleOf(record));
  await store.put(key, bytes, {}, ctx.signal);
}

/**
 * Whoever trusts certain keys pulls a revision with all its snapshots or not at all: one snapshot that is not signed, beside a revision
 * that is, keeps them from it.
 * @throws MvmError `REVISION_SIGNED`
 */
export async function refuseUnsignedSnapshots(
  ctx: Context,
  store: Store,
  [revision, ...snapshots]: readonly [ContentRecord, ...ContentRecord[]],
): Promise<void> {
  if (snapshots.length === 0 || !(await readEarlier(ctx, store, recordKey(revision)))?.signatures.length) return;
  for (const snapshot of snapshots) {
    const earlier = await readEarlier(ctx, store, recordKey(snapshot));
    if (earlier && contentToSign(earlier) === contentToSign(snapshot)) continue;
    throw new MvmError("REVISION_SIGNED", `${titleOf(revision)} is signed, and ${titleOf(snapshot)} would not be`, {
      hint: "sign it, with --sign or --key FILE; leave it out with --no-snapshot; or say with --unsigned that it is meant",
    });
  }
}

function mergedWith(earlier: ContentRecord, record: ContentRecord, signingKey: SigningKey | undefined): ContentRecord {
  if (contentToSign(record) !== contentToSign(earlier)) return record;
  const { signatures } = earlier;
  if (record.kind !== "revision" || earlier.kind !== "revision") return { ...record, signatures };
  // What somebody else signed stays: with ours in its place, that signature would be over something else.
  const byOthers = ({ key }: Signature) => key !== signingKey?.publicKey;
  // When it was built is the first builder's to say: an equal build elsewhere is the same revision.
  const isTimeKept = !signingKey || isTimeSigned(earlier, byOthers);
  const dated = { ...record, ...(isTimeKept ? { builtAt: earlier.builtAt } : {}), signatures };
  const isFlakeKept = isFlakeSigned(earlier, byOthers);
  return isFlakeKept && earlier.flake !== undefined ? { ...dated, flake: earlier.flake } : dated;
}

/** Signs what is written, but of flake and time only what this machine knows itself: a registry's word for it is not signed. */
function signed(merged: ContentRecord, ours: ContentRecord, signingKey: SigningKey | undefined): ContentRecord {
  if (!signingKey) return merged;
  const withFlake = flakeToSign(merged);
  const text = withFlake !== undefined && withFlake === flakeToSign(ours) ? withFlake : contentToSign(merged);
  const isOurTime = merged.kind === "revision" && ours.kind === "revision" && merged.builtAt === ours.builtAt;
  return withSignatures(merged, isOurTime ? [text, builtToSign(merged)] : [text], signingKey);
}

async function readEarlier(ctx: Context, store: Store, key: string): Promise<ContentRecord | undefined> {
  try {
    return await readAnyRecord(ctx, store, key);
  } catch (error) {
    // A damaged record is what a push mends; one of a newer mvmctl is not ours to replace.
    if (isDamagedRecord(error)) return undefined;
    throw error;
  }
}
