import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { sha256 } from "../core/digests.ts";
import { fileError, MvmError } from "../core/errors.ts";
import { writeFileAtomic } from "../core/files.ts";
import {
  type ContentRecord,
  MAX_SIGNATURES,
  type RevisionRecord,
  type Signature,
  type TagRecord,
  titleOf,
} from "./records.ts";

/**
 * Ed25519 (RFC 8032) over one canonical text: what is signed is a list of facts, a line each, and no JSON, so that there
 * is nothing to be read in two ways. The first line names the kind, so that no signature fits something of another kind.
 */
export function contentToSign(record: ContentRecord): string {
  return lines(factsOf(record));
}

/**
 * As `contentToSign`, with the flake: for a signer who knows the flake to be this one. The revision's id does not say it,
 * and another build of the same revision may come from another flake. It is written as JSON: it may hold any character,
 * and must not pass for a line of its own. Undefined for what has no flake.
 */
export function flakeToSign(record: ContentRecord): string | undefined {
  if (record.kind !== "revision" || record.flake === undefined) return undefined;
  return lines([...factsOf(record), `flake ${JSON.stringify(record.flake)}`]);
}

function factsOf(record: ContentRecord): string[] {
  return [
    `mvmctl ${record.kind} 1`,
    `template ${record.template}`,
    `architecture ${record.architecture}`,
    `revision ${record.revision}`,
    ...(record.kind === "snapshot" ? [`snapshot ${record.key}`] : []),
    `document ${sha256(record.document)}`,
    ...record.files.map(({ file, size, sha256 }) => `file ${file} ${size} ${sha256}`),
  ];
}

/**
 * When a revision was built: neither its id nor a tag that is signed says it, where it is pulled by its id. A text of its own, so
 * that a reader who does not know it still finds the signature over the content.
 */
export function builtToSign({ template, revision, builtAt }: RevisionRecord): string {
  return lines(["mvmctl built 1", `template ${template}`, `revision ${revision}`, `built ${builtAt}`]);
}

export function tagToSign(tag: TagRecord): string {
  return lines([
    "mvmctl tag 1",
    `template ${tag.template}`,
    `tag ${tag.tag}`,
    `revision ${tag.revision}`,
    `built ${tag.builtAt}`,
    `moved ${tag.movedAt}`,
  ]);
}

function lines(facts: readonly string[]): string {
  return `${facts.join("\n")}\n`;
}

/** A key pair that signs; `publicKey` is its 32 bytes in base64. */
export interface SigningKey {
  readonly publicKey: string;
  readonly privateKey: KeyObject;
}

/**
 * Makes a key pair, and writes the private key as PEM (PKCS #8) for its owner only. Returns the public key.
 * @throws MvmError `KEY_EXISTS`, `INVALID_PATH`
 */
export function generateKey(path: string): string {
  if (existsSync(path)) {
    throw new MvmError("KEY_EXISTS", `${path} is there already`, {
      hint: "what is signed with it would be worth nothing without it: give another path",
    });
  }
  const directory = dirname(path);
  if (!existsSync(directory)) {
    throw new MvmError("INVALID_PATH", `there is no directory ${directory} for the key`, {
      hint: `make it with \`mkdir -p ${directory}\`, or give another path`,
    });
  }
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  writeFileAtomic(path, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
  return rawPublicKey(publicKey);
}

/** @throws MvmError `KEY_UNUSABLE` */
export function readSigningKey(path: string): SigningKey {
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(readFileSync(path));
  } catch (error) {
    const known = fileError(error, path, "read");
    if (known instanceof MvmError) throw known;
    throw unusable(path, existsSync(path) ? "it holds no private key" : "there is no such file");
  }
  if (privateKey.asymmetricKeyType !== "ed25519") throw unusable(path, "it is no Ed25519 key");
  return { publicKey: rawPublicKey(createPublicKey(privateKey)), privateKey };
}

function unusable(path: string, why: string): MvmError {
  return new MvmError("KEY_UNUSABLE", `the signing key ${path} can't be used: ${why}`, {
    hint: `make one: mvmctl registry keygen ${path}`,
  });
}

function rawPublicKey(key: KeyObject): string {
  return Buffer.from(key.export({ format: "jwk" }).x!, "base64url").toString("base64");
}

export function signText(text: string, { publicKey, privateKey }: SigningKey): Signature {
  return { key: publicKey, signature: sign(null, Buffer.from(text), privateKey).toString("base64") };
}

/** The record with our signatures over these texts in place of all our earlier ones. */
export function withSignatures<T extends ContentRecord>(record: T, texts: readonly string[], key: SigningKey): T {
  const others = record.signatures.filter((one) => one.key !== key.publicKey);
  const ours = texts.map((text) => signText(text, key));
  return { ...record, signatures: [...others, ...ours].slice(-MAX_SIGNATURES) };
}

/** Whether one of the signatures that `counts` is over the record with its flake. */
export function isFlakeSigned(record: ContentRecord, counts: (signature: Signature) => boolean): boolean {
  const text = flakeToSign(record);
  return text !== undefined && record.signatures.some((one) => counts(one) && isSignatureOf(text, one));
}

/** Whether one of the signatures that `counts` is over the time that the record says it was built. */
export function isTimeSigned(record: RevisionRecord, counts: (signature: Signature) => boolean): boolean {
  const text = builtToSign(record);
  return record.signatures.some((one) => counts(one) && isSignatureOf(text, one));
}

/**
 * Does nothing where no keys are trusted. A signature may be over the content alone: the flake is then nobody's word.
 * @throws MvmError `UNTRUSTED` unless one of the trusted keys signed the record, with its flake or without
 */
export function requireTrustedContent(record: ContentRecord, trusted: readonly string[]): void {
  if (isFlakeSigned(record, ({ key }) => trusted.includes(key))) return;
  requireTrusted(contentToSign(record), record.signatures, trusted, titleOf(record));
}

/**
 * Does nothing where no keys are trusted: then a registry's word is enough.
 * @throws MvmError `UNTRUSTED` unless one of the trusted keys signed the text
 */
export function requireTrusted(
  text: string,
  signatures: readonly Signature[],
  trusted: readonly string[],
  what: string,
): void {
  if (trusted.length === 0) return;
  const ours = signatures.filter(({ key }) => trusted.includes(key));
  if (ours.some((one) => isSignatureOf(text, one))) return;
  const why =
    signatures.length === 0
      ? "it is not signed"
      : ours.length === 0
        ? `it is signed by ${signatures.map(({ key }) => key).join(", ")}, which the configuration does not trust`
        : "its signature is over something else";
  throw new MvmError("UNTRUSTED", `${what} is refused: ${why}`, {
    hint: "the configuration trusts certain keys only (registry.trustedKeys); have it pushed with --sign by one of them",
  });
}

function isSignatureOf(text: string, { key, signature }: Signature): boolean {
  const x = Buffer.from(key, "base64").toString("base64url");
  const publicKey = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  return verify(null, Buffer.from(text), publicKey, Buffer.from(signature, "base64"));
}
