import { existsSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { copySparse } from "../core/copy.ts";
import { sha256File } from "../core/digests.ts";
import { MvmError } from "../core/errors.ts";
import { makeReadOnly, syncDirectory, writeFileAtomic } from "../core/files.ts";
import type { TemplateName } from "../core/names.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { filesOf, readSnapshots } from "../template/snapshots.ts";
import { withTemplateLock } from "../template/store.ts";
import { fetchFiles } from "./fetch-files.ts";
import { LocalChunks } from "./local-chunks.ts";
import type { ContentRecord, RemoteRevision, RemoteSnapshot } from "./records.ts";
import { readRemoteRevision, readRemoteSnapshots } from "./remote.ts";
import { requireTrustedContent } from "./signatures.ts";
import { openSparse } from "./sparse-file.ts";
import type { Store } from "./store.ts";
import { noTotals, type TransferTotals } from "./transfer.ts";
import type { Damage } from "./verify.ts";

const LOCK_WAIT_MS = 60 * 60 * 1000;

/**
 * Mends damaged files with the chunks that a registry has of them, fetching only those that are damaged. A file is mended
 * in a copy, which then replaces it: whoever maps the old one keeps it.
 * @throws MvmError `REGISTRY_REVISION_NOT_FOUND`, `NOT_REPAIRABLE`, `UNTRUSTED`, `REGISTRY_…`
 */
export async function repairTemplate(
  ctx: Context,
  store: Store,
  name: TemplateName,
  damage: readonly Damage[],
  trustedKeys: readonly string[],
): Promise<TransferTotals> {
  const totals = noTotals();
  const repair = async () => {
    for (const one of damage) await repairFile(ctx, store, name, one, trustedKeys, totals);
  };
  await withTemplateLock(ctx, name, `repairing ${name}`, repair, LOCK_WAIT_MS);
  return totals;
}

async function repairFile(
  ctx: Context,
  store: Store,
  name: TemplateName,
  damage: Damage,
  trustedKeys: readonly string[],
  totals: TransferTotals,
): Promise<void> {
  const remote = await readRemoteRevision(ctx, store, name, damage.revision);
  const record = await recordOf(ctx, store, remote, damage);
  requireTrustedContent(record, trustedKeys);
  const directory = join(damage.path, "..");
  if (damage.file === "manifest.json" || damage.file === "snapshot.json") {
    // As a build and a capture leave them.
    writeFileAtomic(damage.path, record.document, damage.file === "manifest.json" ? { mode: 0o444 } : {});
    return;
  }
  const file = record.files.find((one) => one.file === damage.file);
  if (!file) throw notRepairable(damage, "the registry's record has no such file");
  if (isCapturedHere(ctx, name, damage, file.sha256))
    throw notRepairable(
      damage,
      "the registry has a snapshot that another machine captured, and this one was captured here",
    );
  using staging = makeStagingDirectory(directory, damage.file);
  const copy = join(staging.path, damage.file);
  if (existsSync(damage.path) && statSync(damage.path).isFile()) await copySparse(damage.path, copy, ctx.signal);
  const to = { record, file, handle: await openSparse(copy, file.size), begun: existsSync(damage.path) };
  try {
    const local = LocalChunks.find(ctx);
    await fetchFiles({ ctx, store, local, totals, onProgress: () => {} }, [to]);
    await to.handle.sync();
  } finally {
    await to.handle.close();
  }
  if ((await sha256File(copy, ctx.signal)) !== file.sha256)
    throw notRepairable(damage, "the chunks that the registry has make another file");
  makeReadOnly(copy);
  renameSync(copy, damage.path);
  syncDirectory(directory);
}

async function recordOf(ctx: Context, store: Store, remote: RemoteRevision, damage: Damage): Promise<ContentRecord> {
  if (damage.snapshot === undefined) return remote.record;
  const snapshots: RemoteSnapshot[] = await readRemoteSnapshots(ctx, store, remote);
  const found = snapshots.find(({ record }) => record.key === damage.snapshot);
  if (found) return found.record;
  throw notRepairable(damage, `the registry has no snapshot ${damage.snapshot} of this revision`);
}

/** Whether the snapshot's own document names another file than the registry: then the registry's chunks would not mend it. */
function isCapturedHere(
  ctx: Context,
  name: TemplateName,
  { revision, snapshot, file }: Damage,
  sha256: string,
): boolean {
  if (snapshot === undefined) return false;
  const local = readSnapshots(ctx.paths.snapshots(name, revision)).find(({ key }) => key === snapshot);
  const digest = local && filesOf(local.snapshot).find((one) => one.file === file);
  return digest !== undefined && digest.sha256 !== sha256;
}

function notRepairable({ path }: Damage, why: string): MvmError {
  return new MvmError("NOT_REPAIRABLE", `${path} can't be repaired: ${why}`, {
    hint: "build it again with --force, or delete the template and pull it",
  });
}
