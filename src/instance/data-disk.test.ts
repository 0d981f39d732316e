import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { addSnapshot, QEMU_HERE, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseInstanceName } from "../core/names.ts";
import { readSnapshots } from "../template/snapshots.ts";
import { keptDataDiskMiB, provideDataDisk } from "./data-disk.ts";
import type { StartPlan } from "./start-plan.ts";

const DIGEST = "0".repeat(64);

/** An instance's empty directory, and a plan to restore a snapshot that has a data disk with that content. */
function useSnapshot(content: string) {
  const data = useDataDirectory();
  const directory = data.paths.instance(parseInstanceName("svc"));
  mkdirSync(directory, { recursive: true });
  const snapshots = join(data.root, "snapshots");
  const files = { vmstate: "vmstate.bin", memory: "mem.bin", dataDisk: "data.img" };
  const digests = Object.entries(files).map(([role, file]) => [role, { file, size: content.length, sha256: DIGEST }]);
  const captured = addSnapshot(snapshots, QEMU_HERE, { dataDiskMiB: 64, files: Object.fromEntries(digests) });
  writeFileSync(join(captured, "data.img"), content, { mode: 0o444 });
  const plan: StartPlan = { start: "restored", snapshot: readSnapshots(snapshots)[0]! };
  return { ...data, directory, plan };
}

function modeOf(path: string): number {
  return statSync(path).mode & 0o777;
}

test("an instance's data disk is its own to write and nobody else's to read, though the snapshot's is read-only", async () => {
  using data = useSnapshot("as captured");
  const path = await provideDataDisk(data.ctx, data.plan, data.directory, 64);
  assert.equal(path, join(data.directory, "data.img"));
  assert.equal(readFileSync(path!, "utf8"), "as captured");
  assert.equal(modeOf(path!), 0o600);
});

test("a data disk of an earlier life is kept, and can be written even if it was copied read-only then", async () => {
  using data = useSnapshot("as captured");
  const own = join(data.directory, "data.img");
  writeFileSync(own, "written since");
  chmodSync(own, 0o444);
  assert.equal(await provideDataDisk(data.ctx, data.plan, data.directory, 64), own);
  assert.equal(readFileSync(own, "utf8"), "written since");
  assert.equal(modeOf(own), 0o600);
});

test("a new data disk has the size that was asked for, and none was asked for with 0", async () => {
  using data = useSnapshot("");
  const plan: StartPlan = { start: "booted", reason: "the revision has no snapshot" };
  assert.equal(await provideDataDisk(data.ctx, plan, data.directory, 0), undefined);
  assert.equal(keptDataDiskMiB(data.directory), undefined);
  const path = await provideDataDisk(data.ctx, plan, data.directory, 16);
  assert.equal(keptDataDiskMiB(data.directory), 16);
  assert.equal(modeOf(path!), 0o600);
});
