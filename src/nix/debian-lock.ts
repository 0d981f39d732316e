import * as v from "valibot";
import type { DocumentKind } from "../core/documents.ts";

/** debian.lock: every Debian package that the images of one flake are made of, by version and SHA-256. */

/** Debian policy, section 5.6.1. */
const PackageName = v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9+.-]{1,127}$/));
/** A name that the Nix store takes, and so a safe file name. */
const StoreName = v.pipe(v.string(), v.regex(/^[A-Za-z0-9+_?=-][A-Za-z0-9+._?=-]{0,206}$/));
const Sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));

/** What mkGuest asks for, as `nix eval` of its `debianRequest` says it. */
export const DebianRequestSchema = v.strictObject({
  /** Under which the lock keeps the image: its name and system. */
  image: StoreName,
  architecture: v.picklist(["amd64", "arm64"]),
  kernel: PackageName,
  busybox: PackageName,
  tools: v.array(PackageName),
  packages: v.array(PackageName),
  /** Packages of the closure that are left out, with everything that only they need. */
  excluded: v.array(PackageName),
});
export type DebianRequest = v.InferOutput<typeof DebianRequestSchema>;

export const LockedFileSchema = v.strictObject({
  name: PackageName,
  version: v.string(),
  architecture: v.string(),
  size: v.pipe(v.number(), v.integer(), v.minValue(1)),
  sha256: Sha256,
  /** The archive it came from, as mirrors call its directory: `debian`, `debian-security`. */
  archive: v.string(),
  /** Below the archive's root. */
  path: v.pipe(
    v.string(),
    v.regex(/^[A-Za-z0-9][A-Za-z0-9+._~%/-]*$/),
    v.check((path) => !/(^|\/)\.\.?(\/|$)/.test(path), "it leads out of the archive"),
  ),
});
export type LockedFile = v.InferOutput<typeof LockedFileSchema>;

/** One image's packages, by the names that `files` explains. */
const LockedImageSchema = v.strictObject({
  request: DebianRequestSchema,
  kernel: StoreName,
  busybox: v.strictObject({
    file: StoreName,
    /** Of the directory in the Nix store that holds nothing but this package's busybox (`nix-hash --type sha256`). */
    directorySha256: Sha256,
  }),
  /** The requested packages and all they need, sorted. */
  tools: v.array(StoreName),
  packages: v.array(StoreName),
});
export type LockedImage = v.InferOutput<typeof LockedImageSchema>;

export const DebianLockSchema = v.pipe(
  v.strictObject({
    version: v.literal(1),
    images: v.record(StoreName, LockedImageSchema),
    files: v.record(StoreName, LockedFileSchema),
  }),
  v.check(
    (lock) =>
      Object.values(lock.images)
        .flatMap(filesOfImage)
        .every((file) => Object.hasOwn(lock.files, file)),
    "an image names a file that is not listed",
  ),
);
export type DebianLock = v.InferOutput<typeof DebianLockSchema>;

export const DebianLockDocument: DocumentKind<DebianLock> = {
  title: "Debian lock",
  version: 1,
  schema: DebianLockSchema,
};

/** Every file that building an image takes, each once. */
export function filesOfImage(image: LockedImage): string[] {
  return [...new Set([image.kernel, image.busybox.file, ...image.tools, ...image.packages])];
}

/**
 * The lock with one image put in or replaced, and without files that no image uses. Keys are sorted, so that equal
 * content is equal text.
 */
export function withImage(
  lock: DebianLock | undefined,
  image: LockedImage,
  files: Readonly<Record<string, LockedFile>>,
): DebianLock {
  const images = sorted({ ...lock?.images, [image.request.image]: image });
  const known = { ...lock?.files, ...files };
  const used = new Set(Object.values(images).flatMap(filesOfImage));
  return {
    version: 1,
    images,
    files: sorted(Object.fromEntries(Object.entries(known).filter(([name]) => used.has(name)))),
  };
}

function sorted<T>(record: Record<string, T>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}
