import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { constants, zstdCompressSync } from "node:zlib";
import { CHUNK_BYTES } from "../core/chunks.ts";
import { sha256 } from "../core/digests.ts";
import { fromFrame, LEVELS, toFrame } from "./frames.ts";

test("a chunk comes back from its frame, at every level and whatever its length", async () => {
  for (const level of Object.values(LEVELS)) {
    for (const chunk of [randomBytes(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES, "some text "), randomBytes(1)]) {
      const frame = await toFrame(chunk, level);
      // Frame_Header_Descriptor (RFC 8878, 3.1.1.1.1): a content size is there if its flag or "single segment" is set.
      assert.notEqual(frame[4]! & 0b1110_0000, 0, "a frame says how long its content is");
      assert.ok((await fromFrame(frame, chunk.length, sha256(chunk))).equals(chunk));
    }
  }
});

test("a frame of more than the chunk is stopped there, and memory with it", async () => {
  const bomb = zstdCompressSync(Buffer.alloc(512 * 1024 * 1024));
  assert.ok(bomb.length < 64 * 1024);
  const before = process.memoryUsage().rss;
  await assert.rejects(fromFrame(bomb, CHUNK_BYTES, "0".repeat(64)), { code: "CHUNK_DAMAGED" });
  assert.ok(process.memoryUsage().rss - before < 64 * 1024 * 1024);
});

test("a frame that wants a window larger than the chunk is refused", async () => {
  const frame = zstdCompressSync(randomBytes(100), { params: { [constants.ZSTD_c_windowLog]: 27 } });
  await assert.rejects(fromFrame(frame, 100, "0".repeat(64)), { code: "CHUNK_DAMAGED" });
});

test("a frame that is shorter than it says, of other content, or no frame at all is refused with both digests", async () => {
  const chunk = randomBytes(1000);
  const frame = await toFrame(chunk, 1);
  const digest = sha256(chunk);
  await assert.rejects(fromFrame(frame.subarray(0, 500), 1000, digest), { code: "CHUNK_DAMAGED" });
  await assert.rejects(fromFrame(frame, 1001, digest), /has 1000 bytes instead of 1001/);
  await assert.rejects(fromFrame(Buffer.from("hello"), 1000, digest), { code: "CHUNK_DAMAGED" });
  const other = "0".repeat(64);
  await assert.rejects(fromFrame(frame, 1000, other), new RegExp(`${digest} instead of ${other}`));
});
