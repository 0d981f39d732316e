import { MvmError } from "./errors.ts";
import { run } from "./process.ts";
import { lastLines } from "./text.ts";

/**
 * Copies a file without making it larger: shares its blocks where the file system can (reflink), and keeps its holes.
 * Node's own copy makes sparse files dense; cp(1) of coreutils does not.
 * @throws MvmError `DISK_FULL`, `COPY_FAILED`
 */
export async function copySparse(from: string, to: string, signal?: AbortSignal): Promise<void> {
  const result = await run("cp", ["--reflink=auto", "--sparse=always", "--", from, to], {
    env: { PATH: process.env["PATH"], LC_ALL: "C" },
    ...(signal ? { signal } : {}),
  });
  if (result.exitCode === 0) return;
  const full = /No space left|quota exceeded/i.test(result.stderr);
  throw new MvmError(
    full ? "DISK_FULL" : "COPY_FAILED",
    `could not copy ${from} to ${to}: ${lastLines(result.stderr, 1)}`,
    {
      ...(full ? { hint: "free some space, or set MVM_DATA_DIR to a larger file system" } : {}),
    },
  );
}

/**
 * Gives the blocks of a file back that hold nothing but zeros: fallocate(1) of util-linux. Where the file system has no holes, or
 * nobody has the program, the file stays as it is.
 */
export async function digHoles(path: string, signal?: AbortSignal): Promise<void> {
  try {
    await run("fallocate", ["--dig-holes", path], {
      env: { PATH: process.env["PATH"], LC_ALL: "C" },
      ...(signal ? { signal } : {}),
    });
  } catch (error) {
    if (!(error instanceof MvmError && error.code === "PROGRAM_MISSING")) throw error;
  }
}
