import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { digHoles } from "./copy.ts";
import { allocatedBytes } from "./disk-usage.ts";

test("zeros that were written become holes, and the content stays", async () => {
  const directory = mkdtempSync(join(tmpdir(), "mvm-holes-"));
  try {
    const path = join(directory, "file");
    const content = Buffer.concat([Buffer.alloc(64 * 1024, 1), Buffer.alloc(1024 * 1024), Buffer.from("end")]);
    writeFileSync(path, content);
    const before = allocatedBytes(statSync(path));
    await digHoles(path);
    assert.ok(allocatedBytes(statSync(path)) < before / 4, `${before} bytes before`);
    assert.deepEqual(readFileSync(path), content);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
