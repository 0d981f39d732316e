import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { MiB } from "../../src/core/sizes.ts";
import type { MachineStatus } from "../../src/instance/status.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";

describe("mvmctl status", () => {
  let mvm: Mvmctl;
  before(() => {
    mvm = useMvmctl();
  });
  after(() => mvm[Symbol.dispose]());
  const status = (env: NodeJS.ProcessEnv = {}) => mvm.json<MachineStatus>(["status"], { env });

  test("names the hypervisor and why it is that one", async () => {
    const { hypervisor } = await status();
    assert.ok(hypervisor.usable && hypervisor.identity.name === "qemu");
    assert.match(hypervisor.why, hypervisor.identity.accelerator === "kvm" ? /^KVM works$/ : /^no KVM: .*kvm/);
    const forced = await status({ MVM_HYPERVISOR: "qemu" });
    assert.match(forced.hypervisor.why, /^MVM_HYPERVISOR is qemu; /);
    const none = await status({ PATH: dirname(process.execPath) });
    assert.deepEqual(none.hypervisor.usable, false);
    assert.match(none.hypervisor.why, /QEMU is not installed/);
  });

  test("says what takes how much, and marks the instance that is damaged", async () => {
    mkdirSync(join(mvm.dataDir, "templates", "web"), { recursive: true });
    mkdirSync(join(mvm.dataDir, "instances", "odd"), { recursive: true });
    writeFileSync(join(mvm.dataDir, "templates", "web", "image"), Buffer.alloc(3 * MiB, 1));
    const { disk, instances } = await status();
    assert.ok(disk.templates >= 3 * MiB && disk.templates < 4 * MiB, String(disk.templates));
    assert.deepEqual(instances, [{ name: "odd", state: "broken" }]);
    assert.match(await mvm.ok(["status"]), /instances +1 broken\n +odd: broken\n/);
  });

  test("says which registry is used and what says so, without its secrets", async () => {
    assert.deepEqual((await status({ MVM_TEMPLATE_REGISTRY_ENDPOINT: "" })).registry, { configured: false });
    const path = join(mvm.dataDir, "config.json");
    const registry = { endpoint: "https://ann:hush@s3.example", bucket: "shared", secretAccessKey: "hush" };
    writeFileSync(path, JSON.stringify({ version: 1, registry }), { mode: 0o600 });
    const place = "https://s3.example, bucket shared";
    assert.deepEqual((await status()).registry, { configured: true, place, from: "config.json" });
    const other = await status({ MVM_TEMPLATE_REGISTRY_ENDPOINT: "https://other.example" });
    assert.deepEqual(other.registry.configured && other.registry.from, "environment");
    assert.doesNotMatch(await mvm.ok(["status"]), /hush/);
    writeFileSync(path, "{");
    assert.match(await mvm.fails(["status"], "CORRUPT_FILE"), /config\.json/);
    rmSync(path);
  });
});
