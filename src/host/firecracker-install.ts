import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import type { Context } from "../core/context.ts";
import { sha256 } from "../core/digests.ts";
import { fileError, isErrno, MvmError, messageOf } from "../core/errors.ts";
import { ensureDirectory, writeFileAtomic } from "../core/files.ts";
import { MiB } from "../core/sizes.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { binDirectory, firecrackerVersion } from "../hypervisor/firecracker-binary.ts";
import type { FirecrackerRelease } from "./firecracker-release.ts";

/** A release's archive has 7.5 MB, and unpacked (with debug symbols beside the programs) under 100 MB. */
const MAX_ARCHIVE_BYTES = 64 * MiB;
const MAX_PROGRAM_BYTES = 64 * MiB;
const DOWNLOAD_TIMEOUT_MS = 10 * 60_000;

/** What a release is unpacked into. */
type Programs = Partial<Record<"firecracker" | "jailer", Buffer>>;

/**
 * Downloads a release, checks its SHA-256, and puts its programs into the data directory's bin.
 * @throws MvmError `DOWNLOAD_FAILED`, `CHECKSUM_MISMATCH`, `NOT_FIRECRACKER`
 */
export async function installRelease(ctx: Context, release: FirecrackerRelease): Promise<string> {
  const { url } = release;
  const archive = await download(url, MAX_ARCHIVE_BYTES, ctx.signal);
  const expected = release.sha256 ?? parseChecksum(await download(`${url}.sha256.txt`, 4096, ctx.signal), url);
  const found = sha256(archive);
  if (found !== expected) {
    throw new MvmError("CHECKSUM_MISMATCH", `${url} has the SHA-256 ${found}, and not ${expected}: it is not used`, {
      hint: "a proxy may have changed it; download it elsewhere and give the file: mvmctl setup --firecracker FILE",
    });
  }
  return install(ctx, await unpack(archive, url), url);
}

/**
 * Takes a release's archive or the program itself from a file. Its version is asked of it; the file is the user's to trust.
 * @throws MvmError `FILE_FAILED`, `NOT_FIRECRACKER`
 */
export async function installFile(ctx: Context, file: string): Promise<string> {
  const bytes = readWhole(file);
  const isGzip = bytes[0] === 0x1f && bytes[1] === 0x8b; // RFC 1952, 2.3.1
  return install(ctx, isGzip ? await unpack(bytes, file) : { firecracker: bytes }, file);
}

function readWhole(file: string): Buffer {
  try {
    if (statSync(file).size > MAX_ARCHIVE_BYTES) throw notFirecracker(file, "it is too large");
    return readFileSync(file);
  } catch (error) {
    if (isErrno(error, "ENOENT")) throw new MvmError("FILE_FAILED", `there is no file ${file}`);
    throw fileError(error, file, "read");
  }
}

/** Publishes the programs once Firecracker has said its version, and returns that. */
async function install(ctx: Context, programs: Programs, from: string): Promise<string> {
  const { firecracker, jailer } = programs;
  if (!firecracker) throw notFirecracker(from, "it holds no program named firecracker");
  const bin = binDirectory(ctx.paths);
  ensureDirectory(bin);
  using staging = makeStagingDirectory(bin, "firecracker");
  const trial = join(staging.path, "firecracker");
  writeFileAtomic(trial, firecracker, { mode: 0o755 });
  const version = await firecrackerVersion(trial, ctx.signal).catch((error: unknown) => {
    ctx.signal.throwIfAborted();
    throw notFirecracker(from, messageOf(error));
  });
  if (!version) throw notFirecracker(from, "it does not say a version of Firecracker");
  if (jailer) writeFileAtomic(join(bin, "jailer"), jailer, { mode: 0o755 });
  writeFileAtomic(join(bin, "firecracker"), firecracker, { mode: 0o755 });
  return version;
}

function notFirecracker(from: string, why: string): MvmError {
  return new MvmError("NOT_FIRECRACKER", `${from} is not a Firecracker that runs here: ${why}`, {
    hint: `give a release's archive (firecracker-vVERSION-${process.arch === "arm64" ? "aarch64" : "x86_64"}.tgz) or the program in it`,
  });
}

/** `<64 digits>  <file name>`, as sha256sum(1) writes it. */
function parseChecksum(bytes: Buffer, url: string): string {
  const digest = /^([0-9a-f]{64})(\s|$)/.exec(bytes.toString("latin1"))?.[1];
  if (digest) return digest;
  throw new MvmError("DOWNLOAD_FAILED", `${url}.sha256.txt holds no SHA-256`);
}

async function download(url: string, maxBytes: number, signal: AbortSignal): Promise<Buffer> {
  const hint = "without a network, download it elsewhere and give the file: mvmctl setup --firecracker FILE";
  try {
    const answer = await fetch(url, { signal: AbortSignal.any([signal, AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS)]) });
    if (!answer.ok) throw new Error(`the server answered ${answer.status} ${answer.statusText}`);
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of answer.body ?? []) {
      bytes += chunk.length;
      if (bytes > maxBytes) throw new Error(`it has more than ${maxBytes} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch (error) {
    signal.throwIfAborted();
    const why = error instanceof Error && error.cause ? messageOf(error.cause) : messageOf(error);
    throw new MvmError("DOWNLOAD_FAILED", `could not download ${url}: ${why}`, { hint, cause: error });
  }
}

/** Takes `release-…/firecracker-v…` and `release-…/jailer-v…` out of an archive; nothing else is looked at. */
async function unpack(archive: Buffer, from: string): Promise<Programs> {
  const programs: Programs = {};
  const entries = extract();
  entries.on("entry", (header, body, next) => {
    const role = /(?:^|\/)(firecracker|jailer)(-v[0-9.]+-[a-z0-9_]+)?$/.exec(header.name)?.[1];
    const wanted = role !== undefined && header.type === "file" && (header.size ?? 0) <= MAX_PROGRAM_BYTES;
    const chunks: Buffer[] = [];
    body.on("data", (chunk) => void (wanted && chunks.push(chunk as Buffer)));
    body.on("end", () => {
      if (wanted) programs[role as keyof Programs] = Buffer.concat(chunks);
      next();
    });
  });
  try {
    await pipeline(Readable.from([archive]), createGunzip(), entries);
  } catch (error) {
    throw notFirecracker(from, messageOf(error));
  }
  return programs;
}
