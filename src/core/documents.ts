import { type Stats, statSync } from "node:fs";
import * as v from "valibot";
import { fileError, MvmError } from "./errors.ts";
import { readTextIfThere, writeFileAtomic } from "./files.ts";

/** What every stored JSON file is: a schema that gives its type, the version it is written in, and how people call it. */
export interface DocumentKind<T extends { version: number }> {
  readonly title: string;
  readonly version: number;
  readonly schema: v.GenericSchema<unknown, T>;
  /** What to do about one that is damaged, if there is something better than a backup. */
  readonly hint?: string;
  /** Upgrades from older versions, by the version they start from. */
  readonly upgrades?: Readonly<Record<number, (old: Record<string, unknown>) => Record<string, unknown>>>;
}

/** No file of ours comes near this; a larger one is damaged or hostile and must not be parsed. */
const MAX_DOCUMENT_BYTES = 64 * 1024 * 1024;

/**
 * Checks parsed text against its schema.
 * @throws MvmError `NEWER_VERSION` for a file of a newer mvmctl, `CORRUPT_FILE` for anything else that does not fit
 */
export function parseDocument<T extends { version: number }>(kind: DocumentKind<T>, text: string, path: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw corrupt(kind, path, text.trim() === "" ? "it is empty" : "it is not valid JSON", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw corrupt(kind, path, "it is not a JSON object");
  }
  let record = value as Record<string, unknown>;
  const found = record["version"];
  if (typeof found !== "number" || !Number.isInteger(found) || found < 1)
    throw corrupt(kind, path, "it has no version");
  if (found > kind.version) {
    throw new MvmError(
      "NEWER_VERSION",
      `${path} was written by a newer mvmctl (${kind.title} version ${found}; this one knows ${kind.version})`,
      { hint: "update mvmctl" },
    );
  }
  for (let version = found; version < kind.version; version++) {
    const upgrade = kind.upgrades?.[version];
    if (!upgrade) throw corrupt(kind, path, `version ${version} is no longer known`);
    record = upgrade(record);
  }
  const result = v.safeParse(kind.schema, record, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw corrupt(kind, path, `${v.getDotPath(issue) ?? "it"}: ${issue.message}`);
}

const RESTORE = "restore the file from a backup, or remove it and create it again";

function corrupt(
  { title, hint = RESTORE }: Pick<DocumentKind<{ version: number }>, "title" | "hint">,
  path: string,
  why: string,
  cause?: unknown,
): MvmError {
  return new MvmError("CORRUPT_FILE", `the ${title} ${path} is damaged: ${why}`, {
    hint,
    cause,
  });
}

/** Reads a document, or undefined where there is no file. @throws as parseDocument */
export function readDocument<T extends { version: number }>(kind: DocumentKind<T>, path: string): T | undefined {
  const stat = statIfThere(path);
  if (stat && !stat.isFile()) throw corrupt(kind, path, "it is not a file");
  if (stat && stat.size > MAX_DOCUMENT_BYTES) throw corrupt(kind, path, `it has ${stat.size} bytes`);
  const text = readTextIfThere(path);
  return text === undefined ? undefined : parseDocument(kind, text, path);
}

function statIfThere(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw fileError(error, path, "read");
  }
}

/** The bytes a document is stored as: stable key order is the caller's, two spaces, a newline at the end. */
export function renderDocument<T extends { version: number }>(value: T): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** Writes a document atomically. */
export function writeDocument<T extends { version: number }>(
  kind: DocumentKind<T>,
  path: string,
  value: Omit<T, "version">,
  options: { mode?: number } = {},
): void {
  writeFileAtomic(path, renderDocument({ version: kind.version, ...value }), options);
}
