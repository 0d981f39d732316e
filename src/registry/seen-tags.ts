import { join } from "node:path";
import * as v from "valibot";
import { type DocumentKind, readDocument, writeDocument } from "../core/documents.ts";
import type { TemplateName } from "../core/names.ts";
import type { Paths } from "../core/paths.ts";
import type { TagRecord } from "./records.ts";
import type { Store } from "./store.ts";

/**
 * registry.json, beside template.json: what each registry's tags meant when this machine last pulled or pushed them. A
 * registry can't take a machine back to an older build without its user's word.
 */
const SeenTagsSchema = v.strictObject({
  version: v.literal(1),
  /** By registry and tag. */
  tags: v.record(v.string(), v.strictObject({ revision: v.string(), builtAt: v.string() })),
});
const SeenTagsDocument: DocumentKind<v.InferOutput<typeof SeenTagsSchema>> = {
  title: "record of pulled tags",
  version: 1,
  schema: SeenTagsSchema,
};

export type SeenTag = Pick<TagRecord, "revision" | "builtAt">;

export const SEEN_TAGS = "registry.json";

const keyOf = (store: Store, tag: string) => `${store.identity} ${tag}`;

export function seenTag(paths: Paths, name: TemplateName, store: Store, tag: string): SeenTag | undefined {
  return read(paths, name)[keyOf(store, tag)];
}

/** `directory` is the template's, or the place where it is being made. */
export function rememberTag(
  paths: Paths,
  name: TemplateName,
  store: Store,
  { tag, revision, builtAt }: TagRecord,
  directory = paths.template(name),
): void {
  const tags = { ...read(paths, name), [keyOf(store, tag)]: { revision, builtAt } };
  writeDocument(SeenTagsDocument, join(directory, SEEN_TAGS), { tags });
}

function read(paths: Paths, name: TemplateName): Record<string, SeenTag> {
  return readDocument(SeenTagsDocument, join(paths.template(name), SEEN_TAGS))?.tags ?? {};
}
