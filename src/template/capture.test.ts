import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { addRevision, QEMU_HERE, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseTemplateName } from "../core/names.ts";
import { createQemuDriver } from "../hypervisor/qemu.ts";
import { captureSnapshot } from "./capture.ts";
import { readRevision } from "./revisions.ts";

const web = parseTemplateName("web");
/** An EiB, in MiB. */
const MORE_THAN_ANY_DISK = 2 ** 40;

test("a snapshot that can't fit is refused before anything is started: its memory counts, and its data disk", async () => {
  for (const sizes of [{ memMiB: MORE_THAN_ANY_DISK }, { dataDiskMiB: MORE_THAN_ANY_DISK }]) {
    using data = useDataDirectory();
    const id = addRevision(data.paths, web, { kernel: "a", builtAt: "2026-01-02T03:04:05.000Z" });
    const { directory, manifest } = readRevision(data.paths, web, id);
    const revision = { id, directory, manifest: { ...manifest, spec: { ...manifest.spec, ...sizes } } };
    const snapshotsDirectory = data.paths.snapshots(web, id);
    const driver = {
      ...createQemuDriver({ cacheDir: data.paths.cache, env: data.ctx.env }),
      probe: async () => QEMU_HERE,
      boot: () => assert.fail("it was started"),
    };
    const request = { revision, snapshotsDirectory, driver, timeoutMs: 1000 };
    await assert.rejects(captureSnapshot(data.ctx, request), { code: "DISK_FULL", message: /a snapshot needs/ });
    assert.deepEqual(existsSync(snapshotsDirectory) && readdirSync(snapshotsDirectory), []);
  }
});
