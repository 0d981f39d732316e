import * as v from "valibot";
import { chunkCount, countChunks, Sha256Schema } from "../core/chunks.ts";
import { sha256 } from "../core/digests.ts";
import { parseDocument } from "../core/documents.ts";
import { MvmError } from "../core/errors.ts";
import { type RevisionId, shortRevision, type TemplateName } from "../core/names.ts";
import {
  artifactsOf,
  type FileDigest,
  FileDigestSchema,
  type Manifest,
  ManifestDocument,
} from "../template/revision.ts";
import { type Snapshot, SnapshotDocument } from "../template/snapshot.ts";
import { filesOf, snapshotKey } from "../template/snapshots.ts";
import { excessOf } from "./record-limits.ts";

/**
 * The JSON objects of a registry, and the only door by which they come in. Nothing read here is believed: sizes, names
 * and places are checked by the schema, digests against what they are of, and a record against the name it was found
 * under. docs/registry-format.md describes every field.
 */

export const MAX_TAG_BYTES = 64 * 1024;

const MAX_CHUNK_BYTES = 16 * 1024 * 1024;
const whole = (min: number, max: number) => v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max));
const Name = v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, "it is not a name"));
/** JSON itself, and so another text that must not be costly to parse: ours have a few KiB. */
const Document = v.pipe(v.string(), v.maxLength(1024 * 1024));
const Time = v.pipe(v.string(), v.isoTimestamp());

const SignatureSchema = v.strictObject({
  /** The Ed25519 public key, 32 bytes in base64. */
  key: v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]{43}=$/, "it is not an Ed25519 public key")),
  /** 64 bytes in base64. */
  signature: v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]{86}==$/, "it is not an Ed25519 signature")),
});
export const MAX_SIGNATURES = 16;
export type Signature = v.InferOutput<typeof SignatureSchema>;

/** Digest of the content, which of `blobs` holds its frame, and offset and length of the frame there. */
export type RemoteChunk = readonly [sha256: string, blob: number, offset: number, length: number];

/** Checked by hand: a record has up to some hundred thousand of them, and a schema takes a second for those. */
function isChunk(value: unknown): value is RemoteChunk {
  if (!Array.isArray(value) || value.length !== 4) return false;
  const [sha256, ...place] = value;
  return v.is(Sha256Schema, sha256) && place.every((number) => isWhole(number, 0));
}

function isWhole(value: unknown, min: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= min;
}

const listOf = <T>(is: (value: unknown) => value is T) =>
  v.custom<T[]>((value) => Array.isArray(value) && value.every(is), "it is not a list of chunks");

const RemoteFileSchema = v.strictObject({
  ...FileDigestSchema.entries,
  /** In the order of the file; a number stands for so many chunks of zeros. */
  chunks: listOf((value): value is number | RemoteChunk => isWhole(value, 1) || isChunk(value)),
});
export type RemoteFile = v.InferOutput<typeof RemoteFileSchema>;

const contentEntries = {
  version: v.literal(1),
  template: Name,
  revision: Sha256Schema,
  /** As `uname -m` says it. */
  architecture: v.pipe(v.string(), v.regex(/^[a-z0-9_]{1,32}$/, "it is not an architecture")),
  chunkBytes: whole(4096, MAX_CHUNK_BYTES),
  blobs: v.pipe(v.array(Sha256Schema), v.maxLength(1_000_000)),
  files: v.pipe(v.array(RemoteFileSchema), v.maxLength(16)),
  signatures: v.pipe(v.array(SignatureSchema), v.maxLength(MAX_SIGNATURES)),
};

/** Stands for the time of a build that nobody can be believed to know: the tag of any other build may take its place. */
export const UNKNOWN_TIME = new Date(0).toISOString();

/** A revision: its manifest as the bytes that its id is the digest of, and where its files' chunks are. */
const RevisionRecordSchema = v.strictObject({
  ...contentEntries,
  kind: v.literal("revision"),
  /** When it was built, RFC 3339, UTC. */
  builtAt: Time,
  /** The flake it was built from, where another machine can reach that too. */
  flake: v.optional(v.pipe(v.string(), v.maxLength(4096))),
  /** The text of manifest.json. */
  document: Document,
});
export type RevisionRecord = v.InferOutput<typeof RevisionRecordSchema>;

/** A snapshot of a revision. */
const SnapshotRecordSchema = v.strictObject({
  ...contentEntries,
  kind: v.literal("snapshot"),
  key: Name,
  /** The text of snapshot.json. */
  document: Document,
});
export type SnapshotRecord = v.InferOutput<typeof SnapshotRecordSchema>;

export type ContentRecord = RevisionRecord | SnapshotRecord;

/** As messages call it. */
export function titleOf(record: ContentRecord): string {
  return record.kind === "snapshot"
    ? `the snapshot ${record.key}`
    : `revision ${shortRevision(record.revision as RevisionId)} of ${record.template}`;
}

/** What a name like `latest` means now. */
const TagRecordSchema = v.strictObject({
  version: v.literal(1),
  kind: v.literal("tag"),
  template: Name,
  tag: Name,
  revision: Sha256Schema,
  builtAt: Time,
  movedAt: Time,
  signatures: v.pipe(v.array(SignatureSchema), v.maxLength(MAX_SIGNATURES)),
});
export type TagRecord = v.InferOutput<typeof TagRecordSchema>;

/** A push that is under way, or was broken off: what it uploaded, and which blobs it relies on. */
const PushRecordSchema = v.strictObject({
  version: v.literal(1),
  kind: v.literal("push"),
  template: Name,
  blobs: v.array(Sha256Schema),
  chunks: listOf(isChunk),
});
export type PushRecord = v.InferOutput<typeof PushRecordSchema>;

/** A collection that is about to delete blobs. */
const CollectionRecordSchema = v.strictObject({
  version: v.literal(1),
  kind: v.literal("collection"),
  blobs: v.array(Sha256Schema),
});

/** The bytes a record is stored as. There is one way to write it, so that two clients can't read the same text differently. */
export function renderRecord(record: { readonly kind: string; readonly [field: string]: unknown }): Buffer {
  return Buffer.from(JSON.stringify(record));
}

function parseRecord<T extends { version: number }>(
  schema: v.GenericSchema<unknown, T>,
  title: string,
  bytes: Buffer,
  place: string,
  hint?: string,
): T {
  const excess = excessOf(bytes);
  if (excess !== undefined) throw refused(place, excess, hint);
  const text = bytes.toString("utf8");
  const record = inRegistry(place, () => parseDocument({ title, version: 1, schema }, text, place), hint);
  // What a key given twice means is up to the reader; so is a key that JSON readers treat in a way of their own.
  if (!isCanonical(text)) throw refused(place, `the ${title} is not written in the one way it may be`, hint);
  return record;
}

/** A string that holds `"__proto__":` has backslashes in it. */
function isCanonical(text: string): boolean {
  return !text.includes('"__proto__":') && JSON.stringify(JSON.parse(text)) === text;
}

/** What is wrong with an object of a registry is not mended like a file of this machine. */
function inRegistry<T>(place: string, parse: () => T, hint?: string): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof MvmError && error.code === "CORRUPT_FILE") throw refused(place, error.message, hint);
    throw error;
  }
}

const PUSH_AGAIN = "nothing was taken from it; push the template again from a machine that has it whole";

/** `why` may quote what was found. */
export function refused(place: string, why: string, hint = PUSH_AGAIN): MvmError {
  const shown = why.slice(0, 1000).replace(new RegExp(NOT_SHOWN, "gu"), "?");
  return new MvmError("REGISTRY_CORRUPT", `${place} in the registry can't be trusted: ${shown}`, { hint });
}

/** What no text of a registry has: it would end up on terminals, where it can pass for other lines, or do worse. */
const NOT_SHOWN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

function requirePlainTexts(place: string, value: unknown): void {
  if (typeof value === "string" && NOT_SHOWN.test(value)) throw refused(place, "a text in it has control characters");
  if (typeof value === "object" && value !== null)
    for (const inner of Object.values(value)) requirePlainTexts(place, inner);
}

/** Whether an error says that a record is not what a record can be, by what is in it or by its size. */
export function isDamagedRecord(error: unknown): boolean {
  return error instanceof MvmError && (error.code === "REGISTRY_CORRUPT" || error.code === "REGISTRY_OBJECT_TOO_LARGE");
}

export const parseTagRecord = (bytes: Buffer, place: string, hint?: string) =>
  parseRecord(TagRecordSchema, "tag", bytes, place, hint);
export const parsePushRecord = (bytes: Buffer, place: string) => parseRecord(PushRecordSchema, "push", bytes, place);
export const parseCollectionRecord = (bytes: Buffer, place: string) =>
  parseRecord(CollectionRecordSchema, "collection", bytes, place);

/** A revision as a registry has it, everything in it checked against everything else. */
export interface RemoteRevision {
  readonly record: RevisionRecord;
  readonly manifest: Manifest;
}

/** @throws MvmError `REGISTRY_CORRUPT`, `NEWER_VERSION` */
export function parseRevisionRecord(bytes: Buffer, name: TemplateName, id: RevisionId, place: string): RemoteRevision {
  const record = parseRecord(RevisionRecordSchema, "revision", bytes, place);
  requireSame(place, "template", record.template, name);
  requireSame(place, "revision", record.revision, id);
  requireSame(place, "SHA-256 of the manifest", sha256(record.document), id);
  const manifest = inRegistry(place, () => parseDocument(ManifestDocument, record.document, place));
  requirePlainTexts(place, [manifest, record.flake]);
  requireSame(place, "template of the manifest", manifest.template, name);
  requireSame(place, "architecture of the manifest", manifest.architecture, record.architecture);
  requireFiles(record, artifactsOf(manifest), place);
  return { record, manifest };
}

/** A snapshot as a registry has it. */
export interface RemoteSnapshot {
  readonly record: SnapshotRecord;
  readonly snapshot: Snapshot;
}

/** @throws MvmError `REGISTRY_CORRUPT`, `NEWER_VERSION` */
export function parseSnapshotRecord(
  bytes: Buffer,
  of: Pick<ContentRecord, "template" | "revision"> & { readonly architecture?: string },
  key: string,
  place: string,
): RemoteSnapshot {
  const record = parseRecord(SnapshotRecordSchema, "snapshot", bytes, place);
  requireSame(place, "template", record.template, of.template);
  requireSame(place, "revision", record.revision, of.revision);
  if (of.architecture !== undefined) requireSame(place, "architecture", record.architecture, of.architecture);
  requireSame(place, "key", record.key, key);
  const snapshot = inRegistry(place, () => parseDocument(SnapshotDocument, record.document, place));
  requirePlainTexts(place, snapshot);
  requireSame(place, "revision of the snapshot", snapshot.revision, record.revision);
  requireSame(place, "hypervisor's key", snapshotKey(snapshot.hypervisor), key);
  requireFiles(record, filesOf(snapshot), place);
  return { record, snapshot };
}

function requireSame(place: string, what: string, found: string, expected: string): void {
  if (found !== expected) throw refused(place, `its ${what} is ${found} instead of ${expected}`);
}

/** What mvmctl keeps beside the files. */
const OUR_FILES = new Set(["manifest.json", "build.json", "chunks.json", "snapshots", "snapshot.json", "guard.json"]);

/** The record has exactly the files of the document, and each list of chunks is as long as its file. */
function requireFiles(record: ContentRecord, expected: readonly FileDigest[], place: string): void {
  if (record.files.length !== expected.length) throw refused(place, "its files are not those of its document");
  const names = new Set(record.files.map(({ file }) => file));
  if (names.size !== record.files.length) throw refused(place, "it has two files of one name");
  for (const digest of expected) {
    if (OUR_FILES.has(digest.file)) throw refused(place, `a file may not be called ${digest.file}`);
    const file = record.files.find((one) => one.file === digest.file);
    if (file?.size !== digest.size || file.sha256 !== digest.sha256)
      throw refused(place, `${digest.file} is not the file of its document`);
    requireChunks(record, file, place);
  }
}

/** A zstd frame of content that can't be compressed is a little longer than the content (zstd's format, 3.1.1). */
export const FRAME_OVERHEAD = 1024;

function requireChunks({ chunkBytes, blobs }: ContentRecord, file: RemoteFile, place: string): void {
  if (countChunks(file.chunks) !== chunkCount(file.size, chunkBytes))
    throw refused(place, `the chunks of ${file.file} are not as many as its size says`);
  for (const chunk of file.chunks) {
    if (typeof chunk === "number") continue;
    const [, blob, offset, length] = chunk;
    const fits = blob < blobs.length && length > 0 && length <= chunkBytes + FRAME_OVERHEAD;
    if (!fits || !Number.isSafeInteger(offset + length)) throw refused(place, `a chunk of ${file.file} is nowhere`);
  }
}
