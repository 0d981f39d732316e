import { MvmError } from "../core/errors.ts";
import { parseTemplateName, type RevisionId, type TemplateName } from "../core/names.ts";

import type { ContentRecord } from "./records.ts";

/** Where things are in a registry; docs/registry-format.md describes them. */
export const BLOBS = "v1/blobs/";
export const TEMPLATES = "v1/templates/";
/** What pushes that are under way have uploaded and rely on. */
export const PUSHES = "v1/pushes/";
/** What collections are about to delete. */
export const COLLECTIONS = "v1/collections/";
/** What a store's abilities are tried out with. */
export const PROBES = "v1/probes/";

export const blobKey = (sha256: string) => `${BLOBS}${sha256}`;
export const revisionsOf = (name: TemplateName) => `${TEMPLATES}${name}/revisions/`;
export const revisionKey = (name: TemplateName, id: RevisionId) => `${revisionsOf(name)}${id}.json`;
export const snapshotsOf = (name: TemplateName, id: RevisionId) => `${revisionsOf(name)}${id}/`;
export const snapshotRecordKey = (name: TemplateName, id: RevisionId, key: string) =>
  `${snapshotsOf(name, id)}${key}.json`;
/** Where a revision's or a snapshot's record is. */
export function recordKey(record: ContentRecord): string {
  const [name, id] = [record.template as TemplateName, record.revision as RevisionId];
  return record.kind === "snapshot" ? snapshotRecordKey(name, id, record.key) : revisionKey(name, id);
}
export const tagsOf = (name: TemplateName) => `${TEMPLATES}${name}/tags/`;
export const tagKey = (name: TemplateName, tag: string) => `${tagsOf(name)}${tag}.json`;
export const claimsOf = (name: TemplateName, tag: string) => `${TEMPLATES}${name}/claims/${tag}/`;

/** What a key under v1/templates/ is of, or undefined for anything that is not ours. */
export function parseTemplateKey(
  key: string,
):
  | { readonly kind: "revision"; readonly template: TemplateName; readonly revision: RevisionId }
  | { readonly kind: "snapshot"; readonly template: TemplateName; readonly revision: RevisionId; readonly key: string }
  | { readonly kind: "tag"; readonly template: TemplateName; readonly tag: string }
  | undefined {
  const match = TEMPLATE_KEY.exec(key);
  if (!match?.groups) return undefined;
  const { template, revision, snapshot, tag } = match.groups;
  const name = template as TemplateName;
  if (tag !== undefined) return { kind: "tag", template: name, tag };
  const id = revision as RevisionId;
  return snapshot === undefined
    ? { kind: "revision", template: name, revision: id }
    : { kind: "snapshot", template: name, revision: id, key: snapshot };
}

const NAME = "[a-z0-9][a-z0-9._-]{0,62}";
const TEMPLATE_KEY = new RegExp(
  `^${TEMPLATES}(?<template>${NAME})/(?:tags/(?<tag>${NAME})|revisions/(?<revision>[0-9a-f]{64})(?:/(?<snapshot>${NAME}))?)\\.json$`,
);

export const DEFAULT_TAG = "latest";

/** @throws MvmError `INVALID_NAME` */
export function parseTag(text: string): string {
  if (/^[a-z0-9][a-z0-9._-]{0,62}$/.test(text)) return text;
  throw new MvmError("INVALID_NAME", `'${text.slice(0, 80).replace(/[^\x20-\x7e]/g, "?")}' is not a valid tag`, {
    hint: "a tag is like latest or v1.2: a-z, 0-9, '.', '_', '-', at most 63 characters",
  });
}

/** What somebody named: a template, one of its tags, or one of its revisions. */
export interface Reference {
  readonly template: TemplateName;
  readonly tag?: string;
  /** The beginning of its id, not checked yet. */
  readonly revision?: string;
}

/**
 * `NAME`, `NAME:TAG` or `NAME@REVISION`, and nothing more: what stood behind a second sign would be passed over, and something else
 * pulled or deleted than was meant.
 * @throws MvmError `INVALID_NAME`
 */
export function parseReference(text: string): Reference {
  const [, name = "", sign, rest = ""] = /^([^:@]*)(?:([:@])(.*))?$/s.exec(text) ?? [];
  const template = parseTemplateName(name);
  if (sign === undefined) return { template };
  if (/[:@]/.test(rest)) {
    throw new MvmError("INVALID_NAME", `after ${name} there can be a tag or a revision, not more`, {
      hint: `write ${name}:TAG or ${name}@REVISION`,
    });
  }
  return sign === ":" ? { template, tag: parseTag(rest) } : { template, revision: rest };
}
