import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { sha256, sha256File } from "../core/digests.ts";
import { type DocumentKind, readDocument, writeDocument } from "../core/documents.ts";
import { fileError, isErrno, messageOf } from "../core/errors.ts";
import { isName } from "../core/names.ts";
import type { HypervisorIdentity } from "../hypervisor/driver.ts";
import type { FileDigest } from "./revision.ts";
import { type Snapshot, SnapshotDocument } from "./snapshot.ts";

/** A snapshot on this machine. */
export interface StoredSnapshot {
  readonly key: string;
  readonly directory: string;
  readonly snapshot: Snapshot;
}

/** The directory name of a hypervisor's snapshot: readable, and different for hypervisors that can't share one. */
export function snapshotKey(identity: HypervisorIdentity): string {
  const cpu = identity.cpuModel.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const key = `${identity.name}-${identity.version}-${identity.accelerator}-${identity.architecture}-l${identity.layout}-${cpu}`;
  if (key.length <= MAX_KEY_LENGTH) return key.replace(/[^a-z0-9]+$/, "");
  // What tells two CPUs apart is at the end of their names: a digest stands for what is cut off.
  const digest = sha256(key).slice(0, 8);
  return `${key.slice(0, MAX_KEY_LENGTH - digest.length - 1).replace(/[^a-z0-9]+$/, "")}-${digest}`;
}

/** As for all names that become paths (core/names.ts). */
const MAX_KEY_LENGTH = 63;

/** The fields that keep a snapshot from loading on this host, as `field: theirs, ours`; none means that it fits. */
export function misfits(theirs: HypervisorIdentity, ours: HypervisorIdentity): string[] {
  const fields = ["name", "version", "accelerator", "architecture", "cpuModel", "layout"] as const;
  return fields
    .filter((field) => theirs[field] !== ours[field])
    .map((field) => `${FIELD_NAMES[field]} is ${theirs[field]} there and ${ours[field]} here`);
}

const FIELD_NAMES = {
  name: "hypervisor",
  version: "hypervisor version",
  accelerator: "accelerator",
  architecture: "architecture",
  cpuModel: "CPU",
  layout: "device layout",
} as const;

/** The snapshots beside a revision. Damaged ones are passed to `onBroken`. */
export function readSnapshots(
  directory: string,
  onBroken: (key: string, why: string) => void = () => {},
): StoredSnapshot[] {
  let keys: string[];
  try {
    keys = readdirSync(directory).filter(isName).sort();
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw fileError(error, directory, "read the directory");
  }
  return keys.flatMap((key) => {
    try {
      const path = join(directory, key);
      const snapshot = readDocument(SnapshotDocument, join(path, "snapshot.json"));
      if (snapshot) return [{ key, directory: path, snapshot }];
      onBroken(key, "snapshot.json is missing");
      return [];
    } catch (error) {
      onBroken(key, messageOf(error));
      return [];
    }
  });
}

/**
 * guard.json, beside snapshot.json and never sent anywhere: size, inode and times of the files when their digests were
 * last checked on this machine. While they are the same, the content is: a restore need not read a gigabyte twice.
 */
const GuardSchema = v.strictObject({ version: v.literal(1), files: v.record(v.string(), v.string()) });
const GuardDocument: DocumentKind<v.InferOutput<typeof GuardSchema>> = {
  title: "snapshot guard",
  version: 1,
  schema: GuardSchema,
};

function stateOf(path: string): string {
  const stat = statSync(path, { bigint: true });
  return `${stat.size} ${stat.ino} ${stat.mtimeNs} ${stat.ctimeNs}`;
}

/** The files of a snapshot. */
export function filesOf(snapshot: Snapshot): FileDigest[] {
  const { vmstate, memory, dataDisk } = snapshot.files;
  return dataDisk ? [vmstate, memory, dataDisk] : [vmstate, memory];
}

/** Records that a snapshot's digests were just found right. */
export function writeGuard(directory: string, snapshot: Snapshot): void {
  const files = Object.fromEntries(filesOf(snapshot).map(({ file }) => [file, stateOf(join(directory, file))]));
  writeDocument(GuardDocument, join(directory, "guard.json"), { files });
}

/** Why a snapshot's files are not what was captured, or undefined if they are. Reads them only where the guard does not vouch for them. */
export async function damageOf(stored: StoredSnapshot, signal?: AbortSignal): Promise<string | undefined> {
  const { directory, snapshot } = stored;
  for (const { file, size } of filesOf(snapshot)) {
    const found = sizeOf(join(directory, file));
    if (found === undefined) return `${file} is missing`;
    if (found !== size) return `${file} has ${found} bytes instead of ${size}`;
  }
  if (guardVouches(stored)) return undefined;
  for (const { file, sha256 } of filesOf(snapshot)) {
    if ((await sha256File(join(directory, file), signal)) !== sha256) return `${file} was altered: its SHA-256 differs`;
  }
  writeGuard(directory, snapshot);
  return undefined;
}

function sizeOf(path: string): number | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false })?.size;
  } catch (error) {
    throw fileError(error, path, "read");
  }
}

function guardVouches({ directory, snapshot }: StoredSnapshot): boolean {
  try {
    const guard = readDocument(GuardDocument, join(directory, "guard.json"));
    return (
      guard !== undefined && filesOf(snapshot).every(({ file }) => guard.files[file] === stateOf(join(directory, file)))
    );
  } catch {
    return false; // a damaged guard vouches for nothing
  }
}
