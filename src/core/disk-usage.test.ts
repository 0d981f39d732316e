import assert from "node:assert/strict";
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { diskUsage } from "./disk-usage.ts";
import { MiB } from "./sizes.ts";

test("disk usage counts what is allocated, each file once, and follows no links", () => {
  const root = mkdtempSync(join(tmpdir(), "mvm-usage-"));
  const empty = diskUsage(root);
  mkdirSync(join(root, "deep"));
  writeFileSync(join(root, "deep", "data"), Buffer.alloc(MiB, 7));
  linkSync(join(root, "deep", "data"), join(root, "same"));
  writeFileSync(join(root, "sparse"), "");
  truncateSync(join(root, "sparse"), 100 * MiB);
  symlinkSync("/usr", join(root, "away"));
  const used = diskUsage(root);
  assert.ok(used >= MiB && used < empty + 1.5 * MiB, `${used} bytes`);
  const seen = new Set<string>();
  assert.ok(diskUsage(join(root, "same"), seen) >= MiB);
  assert.ok(diskUsage(join(root, "deep"), seen) < MiB, "counted already");
  rmSync(root, { recursive: true });
  assert.equal(diskUsage(root), 0);
});
