import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Context } from "../../src/core/context.ts";
import type { TemplateName } from "../../src/core/names.ts";
import type { Driver } from "../../src/hypervisor/driver.ts";
import { driverNamed } from "../../src/hypervisor/drivers.ts";
import { createContext } from "../../src/index.ts";
import { buildTemplate } from "../../src/template/build.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";

describe("snapshots of several hypervisors beside one revision", () => {
  let mvm: Mvmctl;
  let ctx: Context;
  before(async () => {
    mvm = useMvmctl();
    ctx = createContext({ env: mvm.env });
    await mvm.ok(["template", "create", "hello", "--flake", join(REPOSITORY, "examples", "hello"), "--mem", "256"]);
  });
  after(() => mvm[Symbol.dispose]());

  /** A stand-in for a second hypervisor: QEMU again, which says that its snapshots fit nobody else's. */
  function otherHypervisor(): Driver {
    const qemu = driverNamed(ctx, "qemu");
    return { ...qemu, probe: async (signal) => ({ ...(await qemu.probe(signal)), version: "0.0.1" }) };
  }

  test("a build makes one with each, one after the other, and none twice", async () => {
    const build = () => {
      const drivers = [driverNamed(ctx, "qemu"), otherHypervisor()];
      return buildTemplate(ctx, "hello" as TemplateName, { force: false, snapshot: { drivers, timeoutMs: 180_000 } });
    };
    const first = await build();
    assert.deepEqual(
      first.snapshots.map(({ reused }) => reused),
      [false, false],
    );
    const keys = first.snapshots.map(({ stored }) => stored.key);
    assert.equal(new Set(keys).size, 2);
    const second = await build();
    assert.deepEqual(
      second.snapshots.map(({ stored, reused }) => [stored.key, reused]),
      keys.map((key) => [key, true]),
    );
  });

  test("run restores the one that fits", async () => {
    const { stdout } = await mvm.run([
      "run",
      "--template",
      "hello",
      "--name",
      "fits",
      "--hypervisor",
      "qemu",
      "--json",
    ]);
    assert.equal((JSON.parse(stdout) as { start: string }).start, "restored");
    await mvm.ok(["rm", "fits", "--force"]);
  });

  test("a name that no hypervisor has is refused before anything is built", async () => {
    const build = ["template", "build", "hello", "--snapshot", "--hypervisor", "qemu,xen"];
    assert.match(await mvm.fails(build, "UNKNOWN_HYPERVISOR"), /'xen'.*firecracker, qemu/s);
  });

  test("a jail is for Firecracker", async () => {
    const jailed = ["run", "--template", "hello", "--jail", "--hypervisor", "qemu"];
    assert.match(await mvm.fails(jailed, "JAIL_UNSUPPORTED"), /--jail is for Firecracker/);
  });
});
