import { constants, type FileHandle, open } from "node:fs/promises";
import { isZero } from "../core/chunks.ts";
import { fileError } from "../core/errors.ts";

/** Zeros are left out in pieces of this size: what file systems allocate at once (most of them: 4 KiB blocks). */
const BLOCK_BYTES = 4096;

/**
 * Opens a file that is about to be filled chunk by chunk, as long as it will be and all holes. What is there already is
 * kept. A symbolic link or anything else that is no file is not followed.
 * @throws MvmError `DISK_FULL`, `FILE_FAILED`
 */
export async function openSparse(path: string, size: number): Promise<FileHandle> {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    const file = await open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    const stat = await file.stat();
    if (!stat.isFile()) {
      await file.close();
      throw new Error(`${path} is not a file`);
    }
    if (stat.size !== size) await file.truncate(size);
    return file;
  } catch (error) {
    throw fileError(error, path, "write");
  }
}

/** Writes content at a place that holds zeros so far: its own zeros stay holes. */
export async function writeSparse(file: FileHandle, content: Buffer, offset: number): Promise<void> {
  for (const [start, end] of dataRuns(content)) await writeAll(file, content.subarray(start, end), offset + start);
}

/** Writes content over whatever is there. */
export async function writeAll(file: FileHandle, content: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < content.length; ) {
    const { bytesWritten } = await file.write(content, done, content.length - done, offset + done);
    done += bytesWritten;
  }
}

/** Where content has blocks that are not zeros: [start, end) in bytes, neighbours joined. */
export function dataRuns(content: Buffer): [number, number][] {
  const runs: [number, number][] = [];
  for (let start = 0; start < content.length; start += BLOCK_BYTES) {
    const end = Math.min(start + BLOCK_BYTES, content.length);
    if (isZero(content.subarray(start, end))) continue;
    const last = runs.at(-1);
    if (last?.[1] === start) last[1] = end;
    else runs.push([start, end]);
  }
  return runs;
}
