import assert from "node:assert/strict";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BLOCK_BYTES, readBlocks } from "./blocks.ts";

/** Calls back with a file that has these bytes at these offsets, and holes elsewhere. */
async function withFile(
  parent: string,
  { size, data }: { size: number; data: readonly (readonly [offset: number, text: string])[] },
  use: (path: string) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(parent, "mvm-blocks-"));
  const path = join(directory, "file");
  try {
    const file = openSync(path, "w");
    ftruncateSync(file, size);
    for (const [offset, text] of data) writeSync(file, text, offset);
    closeSync(file);
    await use(path);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function readAll(path: string): Promise<Buffer> {
  const blocks = [];
  for await (const block of readBlocks(path)) blocks.push(Buffer.from(block));
  return Buffer.concat(blocks);
}

/** This process's own for a file. */
function descriptorsOf(path: string): string[] {
  return readdirSync("/proc/self/fd").filter((fd) => {
    const link = lstatSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false }) && readlinkSync(`/proc/self/fd/${fd}`);
    return link === path;
  });
}

const FILES = {
  "no bytes": { size: 0, data: [] },
  "a few bytes": { size: 0, data: [[0, "few"]] },
  "nothing but a hole": { size: 3 * BLOCK_BYTES, data: [] },
  "holes, and data across blocks": {
    size: 3 * BLOCK_BYTES,
    data: [
      [5, "first"],
      [BLOCK_BYTES - 3, "across"],
      [3 * BLOCK_BYTES - 4, "last"],
    ],
  },
  "an end within a page": { size: BLOCK_BYTES + 12_345, data: [[BLOCK_BYTES + 12_340, "end"]] },
  "an end with a page": { size: BLOCK_BYTES + 8192, data: [[BLOCK_BYTES + 8188, "end"]] },
} as const;

// Memory file systems have had no direct reads for long; the others have.
for (const parent of [tmpdir(), "/dev/shm"]) {
  for (const [what, file] of Object.entries(FILES)) {
    test(`a file with ${what} is read as it is, in ${parent}`, { skip: !existsSync(parent) }, () =>
      withFile(parent, file, async (path) => {
        assert.ok((await readAll(path)).equals(readFileSync(path)));
      }),
    );
  }
}

test("who stops early, or is stopped, leaves no file open", () =>
  withFile(tmpdir(), FILES["nothing but a hole"], async (path) => {
    const open = () => descriptorsOf(path).length;
    for await (const block of readBlocks(path)) {
      assert.equal(block.length, BLOCK_BYTES);
      assert.equal(open(), 1);
      break;
    }
    assert.equal(open(), 0);
    const stopped = AbortSignal.abort(new Error("enough"));
    await assert.rejects(readBlocks(path, stopped).next(), /enough/);
    assert.equal(open(), 0);
  }));
