import * as v from "valibot";
import type { FileIndex } from "../core/chunks.ts";
import type { DocumentKind } from "../core/documents.ts";
import { TemplateSpecSchema } from "./spec.ts";

/** Size in bytes and SHA-256 (64 lower-case hexadecimal digits) of a file's whole content. */
export const FileDigestSchema = v.strictObject({
  file: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/)),
  size: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER)),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});
export type FileDigest = v.InferOutput<typeof FileDigestSchema>;

export function digestOf(file: string, { size, sha256 }: FileIndex): FileDigest {
  return { file, size, sha256 };
}

export const ROOTFS_TYPES = ["erofs", "squashfs", "ext4"] as const;

/**
 * A revision's manifest.json: everything that decides what a VM of it is, and nothing that changes between two equal
 * builds. Its SHA-256 is the revision's id, so equal builds are one revision.
 */
export const ManifestSchema = v.strictObject({
  version: v.literal(1),
  template: v.string(),
  /** As `uname -m` says it: x86_64, aarch64. */
  architecture: v.string(),
  /** The settings it was built with, but for the flake's place, which differs from machine to machine. */
  spec: v.omit(TemplateSpecSchema, ["version", "name", "flake", "createdAt"]),
  /** The flake's package that was built. */
  package: v.string(),
  artifacts: v.strictObject({
    kernel: FileDigestSchema,
    initrd: v.optional(FileDigestSchema),
    rootfs: FileDigestSchema,
  }),
  image: v.strictObject({
    rootfsType: v.picklist(ROOTFS_TYPES),
    /** Added to the kernel command line that the hypervisor needs. */
    kernelCommandLine: v.string(),
    /** Whether our agent is in the image. Without it there is no health, no exec and no snapshot. */
    agent: v.boolean(),
  }),
});
export type Manifest = v.InferOutput<typeof ManifestSchema>;
/** The files of a revision. */
export function artifactsOf({ artifacts: { kernel, initrd, rootfs } }: Manifest): FileDigest[] {
  return initrd ? [kernel, initrd, rootfs] : [kernel, rootfs];
}

export const ManifestDocument: DocumentKind<Manifest> = { title: "manifest", version: 1, schema: ManifestSchema };

/** build.json, beside the manifest: how this machine came by the revision. Not part of its identity. */
export const BuildRecordSchema = v.strictObject({
  version: v.literal(1),
  /** When it was built, here or elsewhere: RFC 3339, UTC. */
  builtAt: v.string(),
  durationMs: v.optional(v.number()),
  flake: v.string(),
  /** Digest of everything the build depended on; equal means that building again would give the same. Known where it was built. */
  fingerprint: v.optional(v.string()),
  /** The Nix store path the artifacts were copied from. */
  storePath: v.optional(v.string()),
  /** The registry it was pulled from. */
  pulledFrom: v.optional(v.string()),
});
export type BuildRecord = v.InferOutput<typeof BuildRecordSchema>;
export const BuildRecordDocument: DocumentKind<BuildRecord> = {
  title: "build record",
  version: 1,
  schema: BuildRecordSchema,
};
