import { createHash } from "node:crypto";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { forEachParallel } from "../core/parallel.ts";
import { blobKey } from "./keys.ts";
import { type ContentRecord, isDamagedRecord } from "./records.ts";
import { listRemoteRevisions, readRemoteRevision, readRemoteSnapshots } from "./remote.ts";
import type { Store } from "./store.ts";

export interface RemoteVerifyOutcome {
  readonly template: TemplateName;
  readonly revisions: number;
  readonly blobs: number;
  /** Bytes of the blobs. */
  readonly bytes: number;
  readonly damage: readonly { readonly revision: RevisionId; readonly object: string; readonly reason: string }[];
  readonly durationMs: number;
}

const RANGE_BYTES = 4 * 1024 * 1024;
const PARALLEL = 3;

/** Reads every record of a template in a registry, and every blob that one names, and compares each with its digest. */
export async function verifyRemote(
  ctx: Context,
  store: Store,
  name: TemplateName,
  revisions?: readonly RevisionId[],
): Promise<RemoteVerifyOutcome> {
  const started = monotonicMs();
  const ids = revisions ?? (await listRemoteRevisions(ctx, store, name)).map(({ id }) => id);
  if (ids.length === 0) {
    throw new MvmError("REGISTRY_TEMPLATE_NOT_FOUND", `${store.description} has no revision of ${name}`, {
      hint: `\`mvmctl registry ls\` shows what it has; mvmctl template push ${name} puts it there`,
    });
  }
  const damage: { revision: RevisionId; object: string; reason: string }[] = [];
  /** Bytes that a blob must have at least, and one of the revisions that need it. */
  const blobs = new Map<string, { end: number; revision: RevisionId }>();
  for (const id of ids) {
    try {
      const remote = await readRemoteRevision(ctx, store, name, id);
      const snapshots = await readRemoteSnapshots(ctx, store, remote);
      for (const record of [remote.record, ...snapshots.map((one) => one.record)]) noteBlobs(blobs, record, id);
    } catch (error) {
      if (!isDamagedRecord(error)) throw error;
      damage.push({ revision: id, object: "its record", reason: messageOf(error) });
    }
  }
  let bytes = 0;
  await forEachParallel(blobs, PARALLEL, async ([blob, { end, revision }]) => {
    ctx.report({ kind: "detail", text: `reading blob ${blob.slice(0, 12)}` });
    const reason = await damageOfBlob(ctx, store, blob, end, (read) => {
      bytes += read;
    });
    if (reason) damage.push({ revision, object: blobKey(blob), reason });
  });
  return {
    template: name,
    revisions: ids.length,
    blobs: blobs.size,
    bytes,
    damage,
    durationMs: monotonicMs() - started,
  };
}

function noteBlobs(
  blobs: Map<string, { end: number; revision: RevisionId }>,
  record: ContentRecord,
  revision: RevisionId,
): void {
  for (const { chunks } of record.files) {
    for (const chunk of chunks) {
      if (typeof chunk === "number") continue;
      const [, index, offset, length] = chunk;
      const blob = record.blobs[index]!;
      const end = Math.max(blobs.get(blob)?.end ?? 0, offset + length);
      blobs.set(blob, { end, revision });
    }
  }
}

async function damageOfBlob(
  ctx: Context,
  store: Store,
  blob: string,
  end: number,
  onRead: (bytes: number) => void,
): Promise<string | undefined> {
  const info = await store.head(blobKey(blob), ctx.signal);
  if (!info) return "it is missing";
  if (info.size < end) return `it has ${info.size} bytes, and chunks up to ${end}`;
  const hash = createHash("sha256");
  try {
    for (let offset = 0; offset < info.size; offset += RANGE_BYTES) {
      const length = Math.min(RANGE_BYTES, info.size - offset);
      hash.update(await store.getRange(blobKey(blob), offset, length, ctx.signal));
      onRead(length);
    }
  } catch (error) {
    if (error instanceof MvmError && error.code === "REGISTRY_SHORT_READ") return messageOf(error);
    throw error;
  }
  const found = hash.digest("hex");
  if (found === blob) return undefined;
  // A push asks for a blob's size only: it relies on this one as long as it is there.
  return `its SHA-256 is ${found}; delete this object before the push that mends it`;
}
