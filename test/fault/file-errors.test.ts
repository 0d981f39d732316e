import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { MvmError } from "../../src/core/errors.ts";
import { parseTemplateName } from "../../src/core/names.ts";
import { exportFleet } from "../../src/fleet/export.ts";
import type { Check } from "../../src/host/check.ts";
import { checkMachine } from "../../src/host/doctor.ts";
import { installFile } from "../../src/host/firecracker-install.ts";
import { checkInstances } from "../../src/instance/checks.ts";
import { machineStatus } from "../../src/instance/status.ts";
import { checkTemplates } from "../../src/template/checks.ts";
import { createTemplate } from "../../src/template/create.ts";
import { TEMPLATE_DEFAULTS } from "../../src/template/spec.ts";
import { addRevision, addSnapshot, QEMU_HERE, useDataDirectory } from "../support/data-directory.ts";
import { failNthFileCall } from "../support/failing-files.ts";

const CODES = ["EIO", "EROFS", "EACCES", "EMFILE"];
const web = parseTemplateName("web");

/** A data directory with a template, an instance, a configuration, and a stand-in for Firecracker. */
function useFullDirectory() {
  const data = useDataDirectory();
  createTemplate(data.ctx, web, { ...TEMPLATE_DEFAULTS, flake: data.flake("web") }, data.root);
  const id = addRevision(data.paths, web, { kernel: "a kernel", builtAt: "2026-01-01T00:00:00.000Z" });
  addSnapshot(data.paths.snapshots(web, id), QEMU_HERE);
  mkdirSync(join(data.paths.instances, "odd"), { recursive: true });
  writeFileSync(join(data.paths.dataDir, "config.json"), '{"version":1}');
  const program = join(data.root, "fc");
  writeFileSync(program, '#!/bin/sh\necho "Firecracker v1.16.1"\n', { mode: 0o755 });
  return { data, program };
}

describe("file calls that fail, one after the other", () => {
  type Work = (full: ReturnType<typeof useFullDirectory>) => unknown;
  const works: Record<string, Work> = {
    status: ({ data }) => machineStatus(data.ctx),
    "looking at templates": ({ data }) => checkTemplates(data.paths, data.ctx.signal),
    "looking at instances": ({ data }) => checkInstances(data.paths),
    "installing Firecracker": ({ data, program }) => installFile(data.ctx, program),
    export: ({ data }) => {
      const sizes = { cpus: 1, memMiB: 256 };
      const fleet = {
        template: web,
        count: 2,
        program: "/bin/mvmctl",
        dataDir: "/d",
        image: "i",
        kvm: true,
        isolate: false,
        sizes,
      };
      const ports = [{ hostAddress: "127.0.0.1", hostPort: 80, guestPort: 80 }];
      exportFleet("systemd", { ...fleet, ports }, join(data.root, "out"), { force: true });
    },
  };
  for (const [what, work] of Object.entries(works)) {
    test(`${what}: each is an error that names a file, or harms nothing`, async () => {
      for (const code of CODES) {
        const full = useFullDirectory();
        using data = full.data;
        for (let nth = 1, more = true; more; nth++) {
          // What it made the time before would not be made again.
          for (const made of [data.paths.bin, join(data.root, "out")]) rmSync(made, { recursive: true, force: true });
          more = await failNthFileCall(nth, code, data.root, async () => {
            try {
              await work(full);
            } catch (error) {
              assert.ok(error instanceof MvmError, `${code} at call ${nth}: ${(error as Error).stack}`);
              assert.ok(error.message.includes("/"), `${code} at call ${nth}: ${error.message}`);
            }
          });
          // Whatever it left does not keep the same work from being done again.
          if (code === "EIO") await work(full);
        }
      }
    });
  }

  test("the doctor says which check failed, and makes all the others", async () => {
    const subjects = (checks: readonly Check[]) => checks.map(({ subject }) => subject);
    const { data } = useFullDirectory();
    using _data = data;
    const whole = subjects(await checkMachine(data.ctx));
    for (let nth = 1; nth <= 6; nth++) {
      let found: Check[] = [];
      const hit = await failNthFileCall(nth, "EIO", data.root, async () => {
        found = await checkMachine(data.ctx);
      });
      assert.ok(hit);
      assert.ok(found.length >= whole.length - 1, `call ${nth}: ${subjects(found)}`);
    }
  });
});
