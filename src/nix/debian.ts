import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { sha256File } from "../core/digests.ts";
import { readDocument, renderDocument } from "../core/documents.ts";
import { MvmError } from "../core/errors.ts";
import { writeFileAtomic } from "../core/files.ts";
import { acquireLock, type Lock } from "../core/locks.ts";
import { run } from "../core/process.ts";
import { MiB } from "../core/sizes.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { lastLines } from "../core/text.ts";
import { Apt } from "./apt.ts";
import {
  DebianLockDocument,
  type DebianRequest,
  filesOfImage,
  type LockedFile,
  type LockedImage,
  withImage,
} from "./debian-lock.ts";
import { addFixed, type FixedContent, fixedStorePath, hashTree, missingStorePaths } from "./nix-store.ts";

export interface DebianOptions {
  /** For apt's caches and for downloaded packages, which are kept: an archive may drop an old version at any time. */
  readonly cacheDirectory: string;
  readonly env: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
  /** Told what takes time: "downloading 12 Debian packages (45 MiB)". */
  readonly onProgress?: (text: string) => void;
}

/** How long a build waits for another one that is downloading. */
const CACHE_LOCK_TIMEOUT_MS = 30 * 60 * 1000;
/** The store path's name; nix/debian/lock.nix asks for the same. */
const BUSYBOX_DIRECTORY = "mvm-busybox";

/**
 * Makes sure that debian.lock pins every package of an image. What is locked stays as it is, unless the image asks for
 * other packages or `update` is set; then apt chooses that image's versions anew.
 * @returns whether the lock was written
 * @throws MvmError `CORRUPT_FILE`, `APT_MISSING`, `APT_LISTS_MISSING`, `DEBIAN_PACKAGE_UNKNOWN`, `DEBIAN_PACKAGES_UNRESOLVED`,
 *   `DEBIAN_PACKAGES_GONE`
 */
export async function lockDebianPackages(
  lockFile: string,
  request: DebianRequest,
  options: DebianOptions & { readonly update?: boolean },
): Promise<boolean> {
  const locked = readDocument(DebianLockDocument, lockFile)?.images[request.image];
  if (locked && isDeepStrictEqual(locked.request, request) && !options.update) return false;

  await using _cache = await lockCache(options);
  options.onProgress?.(`choosing Debian packages for ${request.image}`);
  const apt = openApt(request.architecture, options);
  const kernel = chooseKernel(request.kernel, await apt.resolve([request.kernel]));
  const tools = await apt.resolve([request.busybox, ...request.tools]);
  const packages = await apt.resolve(request.packages, request.excluded);

  const files: Record<string, LockedFile> = {};
  const record = (file: LockedFile) => {
    const name = storeNameOf(file);
    files[name] = file;
    return name;
  };
  const busybox = record(tools.get(request.busybox)!);
  tools.delete(request.busybox);
  const image: LockedImage = {
    request,
    kernel: record(kernel),
    busybox: { file: busybox, directorySha256: await digestOfBusybox(busybox, files[busybox]!, apt, options) },
    tools: [...tools.values()].map(record).sort(),
    packages: [...packages.values()].map(record).sort(),
  };
  // Read again: another build may have locked its own image meanwhile.
  writeFileAtomic(lockFile, renderDocument(withImage(readDocument(DebianLockDocument, lockFile), image, files)));
  return true;
}

/**
 * Makes sure that the Nix store has every file that an image's part of debian.lock names, so that Nix builds without a
 * network: from the cache or the machine's Debian archives, each checked against its SHA-256.
 * @param image the lock's name for it: `request.image`
 * @throws MvmError `DEBIAN_LOCK_MISSING`, `DEBIAN_PACKAGES_GONE` for versions that are no longer on offer, `CORRUPT_FILE`
 */
export async function realiseDebianLock(lockFile: string, image: string, options: DebianOptions): Promise<void> {
  const lock = readDocument(DebianLockDocument, lockFile);
  const locked = lock?.images[image];
  if (!lock || !locked) {
    throw new MvmError("DEBIAN_LOCK_MISSING", `${lockFile} ${lock ? `has no image ${image}` : "does not exist"}`, {
      hint: "build the template from a directory of this machine: `mvmctl template build` writes the lock there",
    });
  }
  const wanted = new Map(filesOfImage(locked).map((name) => [name, lock.files[name]!]));
  const busybox: FixedContent = { name: BUSYBOX_DIRECTORY, sha256: locked.busybox.directorySha256, mode: "tree" };
  const pathOf = (name: string) =>
    fixedStorePath({ name, sha256: wanted.get(name)!.sha256, mode: "file" }, options.env);
  const missing = await missingStorePaths(
    [...[...wanted.keys()].map(pathOf), fixedStorePath(busybox, options.env)],
    options,
  );
  if (missing.size === 0) return;

  await using _cache = await lockCache(options);
  const apt = openApt(locked.request.architecture, options);
  const absent = new Map([...wanted].filter(([name]) => missing.has(pathOf(name))));
  await fillCache(absent, apt, options);
  if (absent.size > 0)
    await addFixed(
      "file",
      [...absent.keys()].map((name) => join(debsIn(options), name)),
      options,
    );
  if (missing.has(fixedStorePath(busybox, options.env)))
    await addBusybox(locked.busybox.file, wanted.get(locked.busybox.file)!, busybox, apt, options);
}

function lockCache(options: DebianOptions): Promise<Lock> {
  return acquireLock(options.cacheDirectory, {
    purpose: "downloading Debian packages",
    timeoutMs: CACHE_LOCK_TIMEOUT_MS,
    onWait: (holder) => options.onProgress?.(`waiting for ${holder}`),
    ...(options.signal ? { signal: options.signal } : {}),
  });
}

function openApt(architecture: string, options: DebianOptions): Apt {
  return new Apt(join(options.cacheDirectory, "apt"), architecture, options);
}

function debsIn(options: DebianOptions): string {
  return join(options.cacheDirectory, "debs");
}

/** `redis-server_5-7.0.15-1-deb12u10_amd64.deb`: the Nix store takes neither ':' nor '~' in a name. */
function storeNameOf(file: LockedFile): string {
  return `${file.name}_${file.version}_${file.architecture}.deb`.replace(/[^A-Za-z0-9+._?=-]/g, "-");
}

/** The package with the kernel itself, where a metapackage such as linux-image-cloud-amd64 was asked for. */
function chooseKernel(name: string, closure: ReadonlyMap<string, LockedFile>): LockedFile {
  const concrete = [...closure.values()].filter((file) => /^linux-image-\d/.test(file.name));
  const kernel = closure.get(name)?.name.match(/^linux-image-\d/) ? closure.get(name) : concrete[0];
  if (kernel) return kernel;
  throw new MvmError("DEBIAN_PACKAGES_UNRESOLVED", `${name} brings no kernel (no package linux-image-VERSION)`);
}

/**
 * Brings these files into the cache.
 * @throws MvmError `DEBIAN_PACKAGES_GONE`, naming those that can't be had
 */
async function fillCache(files: ReadonlyMap<string, LockedFile>, apt: Apt, options: DebianOptions): Promise<void> {
  const missing = new Map<string, LockedFile>();
  for (const [name, file] of files) if (!(await isCached(name, file, options))) missing.set(name, file);
  if (missing.size === 0) return;
  const size = [...missing.values()].reduce((sum, file) => sum + file.size, 0);
  options.onProgress?.(
    `downloading ${missing.size} Debian package${missing.size === 1 ? "" : "s"} (${Math.ceil(size / MiB)} MiB)`,
  );
  const { gone, errors } = await apt.download(missing, debsIn(options));
  if (gone.length === 0) return;
  const names = gone.map((name) => `${missing.get(name)!.name} ${missing.get(name)!.version}`);
  throw new MvmError(
    "DEBIAN_PACKAGES_GONE",
    `this machine's Debian archives don't give the locked ${names.join(", ")}`,
    {
      hint: "if the network is all right, the versions are no longer on offer: run apt-get update, remove debian.lock, and build again",
      detail: errors,
    },
  );
}

async function isCached(name: string, file: LockedFile, options: DebianOptions): Promise<boolean> {
  const path = join(debsIn(options), name);
  return existsSync(path) && (await sha256File(path, options.signal)) === file.sha256;
}

async function digestOfBusybox(name: string, file: LockedFile, apt: Apt, options: DebianOptions): Promise<string> {
  await fillCache(new Map([[name, file]]), apt, options);
  using staging = makeStagingDirectory(options.cacheDirectory, "busybox");
  return await hashTree(await unpackBusybox(join(debsIn(options), name), staging.path, options), options);
}

async function addBusybox(
  name: string,
  file: LockedFile,
  content: FixedContent,
  apt: Apt,
  options: DebianOptions,
): Promise<void> {
  await fillCache(new Map([[name, file]]), apt, options);
  using staging = makeStagingDirectory(options.cacheDirectory, "busybox");
  const directory = await unpackBusybox(join(debsIn(options), name), staging.path, options);
  const [path] = await addFixed("tree", [directory], options);
  if (path === fixedStorePath(content, options.env)) return;
  throw new MvmError("CORRUPT_FILE", `debian.lock has a wrong digest for the busybox of ${name}`, {
    hint: "remove debian.lock, and build again",
  });
}

/** Makes a directory with nothing but the package's busybox in it, and returns its path. */
async function unpackBusybox(deb: string, scratch: string, options: DebianOptions): Promise<string> {
  const unpacked = join(scratch, "unpacked");
  const result = await run("dpkg-deb", ["--extract", deb, unpacked], {
    installHint: "images with hostPkgs need a machine with Debian's packages, or install it: apt-get install dpkg",
    env: options.env,
    ...(options.signal ? { signal: options.signal } : {}),
  });
  if (result.exitCode !== 0) {
    throw new MvmError("DEBIAN_PACKAGE_DAMAGED", `${deb} can't be unpacked: ${lastLines(result.stderr, 1)}`, {
      hint: `remove ${deb}, and try again`,
    });
  }
  const directory = join(scratch, BUSYBOX_DIRECTORY);
  mkdirSync(directory);
  const program = ["bin/busybox", "usr/bin/busybox"]
    .map((path) => join(unpacked, path))
    .find((path) => existsSync(path));
  if (!program) throw new MvmError("DEBIAN_PACKAGE_DAMAGED", `${deb} has no busybox in it`);
  copyFileSync(program, join(directory, "busybox")); // keeps the executable bit
  return directory;
}
