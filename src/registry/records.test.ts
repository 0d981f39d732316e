import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { useDataDirectory } from "../../test/support/data-directory.ts";
import { makeTemplate, pushRequest } from "../../test/support/registry.ts";
import { sha256 } from "../core/digests.ts";
import { MvmError } from "../core/errors.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { pushTemplate } from "./push.ts";
import { parseRevisionRecord, parseSnapshotRecord, parseTagRecord, type RevisionRecord } from "./records.ts";
import { DirectoryStore } from "./stores/directory.ts";

const name = "web" as TemplateName;
let id: RevisionId;
let revisionText: string;
let snapshotText: string;
let snapshotKey: string;

before(async () => {
  using data = useDataDirectory();
  const root = join(data.root, "registry");
  mkdirSync(root);
  id = makeTemplate(data.paths, name).id;
  await pushTemplate(data.ctx, new DirectoryStore(root), pushRequest(name));
  const revisions = join(root, "v1/templates/web/revisions");
  revisionText = readFileSync(join(revisions, `${id}.json`), "utf8");
  const [file] = readdirSync(join(revisions, id));
  snapshotKey = file!.replace(/\.json$/, "");
  snapshotText = readFileSync(join(revisions, id, file!), "utf8");
});

const parse = (text: string) => parseRevisionRecord(Buffer.from(text), name, id, "the record");
/** Changes the record's fields. */
const change = (edit: (record: RevisionRecord) => unknown) => {
  const record = JSON.parse(revisionText) as RevisionRecord;
  edit(record);
  return JSON.stringify(record);
};
const file = (record: RevisionRecord) =>
  record.files[1] as { size: number; chunks: unknown[]; file: string; sha256: string };

test("records that a push writes are read", () => {
  assert.equal(parse(revisionText).manifest.template, name);
  const of = { template: name, revision: id, architecture: "x86_64" };
  assert.equal(parseSnapshotRecord(Buffer.from(snapshotText), of, snapshotKey, "the record").snapshot.revision, id);
});

test("a record of a newer mvmctl is refused as that", () => {
  assert.throws(() => parse(change((record) => Object.assign(record, { version: 2 }))), {
    code: "NEWER_VERSION",
    hint: "update mvmctl",
  });
});

for (const [what, edit] of [
  ["a digest that is a path", (r) => (r.blobs[0] = "sha256:../../etc/passwd")],
  ["a digest in upper case", (r) => (r.blobs[0] = r.blobs[0]!.toUpperCase())],
  ["a short digest", (r) => (r.blobs[0] = "abc")],
  ["another template's record", (r) => (r.template = "other")],
  ["another architecture", (r) => (r.architecture = "aarch64")],
  ["a manifest that is not the revision's", (r) => (r.document = r.document.replace("worker", "gateway"))],
  ["a name with a path", (r) => (file(r).file = "../../x")],
  ["an absolute name", (r) => (file(r).file = "/etc/passwd")],
  ["a name with a NUL", (r) => (file(r).file = "a\0b")],
  ["a name of 300 bytes", (r) => (file(r).file = "a".repeat(300))],
  ["a name that only looks like ours", (r) => (file(r).file = "rооtfs.erofs")],
  ["a negative size", (r) => (file(r).size = -1)],
  ["a size over 2^53", (r) => (file(r).size = 2 ** 60)],
  ["another size than the manifest's", (r) => (file(r).size += 1)],
  ["chunks past the end", (r) => file(r).chunks.push(1)],
  ["a gap in the chunks", (r) => file(r).chunks.pop()],
  ["a run of zeros that overflows", (r) => (file(r).chunks[0] = Number.MAX_SAFE_INTEGER)],
  ["a run of zeros of no length", (r) => file(r).chunks.push(0)],
  ["a chunk in a blob that is not listed", (r) => ((file(r).chunks[0] as number[])[1] = 99)],
  ["a chunk at a negative offset", (r) => ((file(r).chunks[0] as number[])[2] = -5)],
  ["a chunk at an offset that overflows", (r) => ((file(r).chunks[0] as number[])[2] = Number.MAX_SAFE_INTEGER)],
  ["a frame longer than a chunk can be", (r) => ((file(r).chunks[0] as number[])[3] = 1e9)],
  ["chunks of no size", (r) => (r.chunkBytes = 0)],
  ["chunks of a GiB", (r) => (r.chunkBytes = 2 ** 30)],
  ["an unknown field", (r) => Object.assign(r, { more: 1 })],
  ["no files", (r) => (r.files = [])],
  ["a file twice", (r) => r.files.push(r.files[0]!)],
] satisfies [string, (record: RevisionRecord) => unknown][]) {
  test(`refused: ${what}`, () => {
    assert.throws(() => parse(change(edit)), { code: "REGISTRY_CORRUPT" });
  });
}

test("refused: a key given twice, __proto__, white space, bytes that are no JSON", () => {
  assert.throws(() => parse(revisionText.replace("{", '{"template":"web",')), { code: "REGISTRY_CORRUPT" });
  assert.throws(() => parse(revisionText.replace("{", '{"__proto__":{"a":1},')), { code: "REGISTRY_CORRUPT" });
  assert.throws(() => parse(` ${revisionText}`), { code: "REGISTRY_CORRUPT" });
  assert.throws(() => parse(revisionText.slice(0, 100)), { code: "REGISTRY_CORRUPT" });
  assert.throws(() => parse(""), { code: "REGISTRY_CORRUPT" });
});

test("refused: nesting without end", () => {
  const deep = `${"[".repeat(1e5)}${"]".repeat(1e5)}`;
  assert.throws(() => parse(revisionText.replace('"files":[', `"files":[${deep},`)), { code: "REGISTRY_CORRUPT" });
});

for (const [what, costly] of [
  ["values", "1,".repeat(2 ** 20)],
  ["levels", "[".repeat(10)],
  ["keys", '"a":1,'.repeat(2000)],
] as const) {
  // What follows is no JSON: a record that was parsed would be refused for that.
  test(`refused before it is parsed: too many ${what}`, () => {
    const text = revisionText.replace('"files":[', `"files":[${costly}`);
    assert.throws(() => parse(text), { code: "REGISTRY_CORRUPT", message: new RegExp(what) });
  });
}

test("commas and brackets within a document do not count", () => {
  const document = `,[{":"`.repeat(2 ** 16);
  assert.throws(() => parse(change((record) => (record.document = document))), { message: /SHA-256 of the manifest/ });
});

test("refused: a document that is costly to parse itself", () => {
  const document = "[1,".repeat(2 ** 20);
  assert.throws(() => parse(change((record) => (record.document = document))), { message: /damaged: document/ });
});

test("refused: a snapshot of another revision, of another architecture, under another key", () => {
  const read = (of: object, key = snapshotKey) =>
    parseSnapshotRecord(Buffer.from(snapshotText), { template: name, revision: id, ...of }, key, "the record");
  assert.throws(() => read({ revision: "0".repeat(64) }), { code: "REGISTRY_CORRUPT" });
  assert.throws(() => read({ architecture: "aarch64" }), { code: "REGISTRY_CORRUPT" });
  assert.throws(() => read({}, "another-key"), { code: "REGISTRY_CORRUPT" });
});

test("refused, and never shown: texts that would write to a terminal what is not so", () => {
  const evil = "\u001b]0;x\u0007\nweb is whole\u202e";
  const said = (error: unknown) => {
    assert.ok(error instanceof MvmError && error.code === "REGISTRY_CORRUPT", String(error));
    assert.doesNotMatch(error.message, /[\p{Cc}\p{Cf}]/u);
    return true;
  };
  assert.throws(() => parse(change((record) => Object.assign(record, { flake: `github:a/b${evil}` }))), said);
  const manifest = JSON.parse(JSON.parse(revisionText).document);
  const document = JSON.stringify({ ...manifest, package: evil });
  const revision = sha256(document) as RevisionId;
  const altered = Buffer.from(change((record) => Object.assign(record, { document, revision })));
  assert.throws(() => parseRevisionRecord(altered, name, revision, "the record"), said);

  const record = JSON.parse(snapshotText);
  const snapshot = JSON.parse(record.document);
  for (const change of [
    { hypervisor: { ...snapshot.hypervisor, cpuModel: `${snapshot.hypervisor.cpuModel}\u0007` } },
    { hypervisor: { ...snapshot.hypervisor, version: evil } },
    { revision: evil },
    { cpus: evil },
  ]) {
    const text = JSON.stringify({ ...record, document: JSON.stringify({ ...snapshot, ...change }) });
    const of = { template: name, revision: id };
    assert.throws(() => parseSnapshotRecord(Buffer.from(text), of, snapshotKey, "the record"), said);
  }
});

test("refused: a tag whose revision is no digest", () => {
  const tag = {
    version: 1,
    kind: "tag",
    template: "web",
    tag: "latest",
    revision: "../../x",
    builtAt: "2026-01-02T03:04:05.000Z",
    movedAt: "2026-01-02T03:04:05.000Z",
    signatures: [],
  };
  assert.throws(() => parseTagRecord(Buffer.from(JSON.stringify(tag)), "the tag"), { code: "REGISTRY_CORRUPT" });
});
