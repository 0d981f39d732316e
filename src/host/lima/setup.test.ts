import assert from "node:assert/strict";
import { test } from "node:test";
import type { LimaStatus, LimaVm } from "./limactl.ts";
import { limaSetupSteps, parseLimaCpus, parseLimaMemMiB } from "./setup.ts";
import { LIMA_LAYOUT, type LimaMachine, nestedVirtualization } from "./template.ts";

const MACHINE: LimaMachine = {
  cpus: 4,
  memMiB: 8192,
  arch: "aarch64",
  vmType: "vz",
  nested: true,
  packageDirectory: "/Users/me/mvmctl",
};
const VM: LimaVm = {
  directory: "/Users/me/.lima/mvmctl",
  cpus: 4,
  memMiB: 8192,
  layout: LIMA_LAYOUT,
  packageDirectory: "/Users/me/mvmctl",
  sharedDirectories: ["/Users/me"],
};

/** The steps as one would type them. */
function plan(status: LimaStatus, machine: Partial<LimaMachine> = {}): string[] {
  return limaSetupSteps(status, { ...MACHINE, ...machine }, "/Users/me/.mvm/lima").map(({ action }) =>
    action.kind === "write" ? `> ${action.path}` : action.args.join(" "),
  );
}

test("a VM that is missing is described, created and started", () => {
  assert.deepEqual(plan({ state: "missing" }), [
    "> /Users/me/.mvm/lima/mvmctl.yaml",
    "create --tty=false --name=mvmctl /Users/me/.mvm/lima/mvmctl.yaml",
    "start --tty=false mvmctl",
  ]);
});

test("a VM as it should be is only started, or left alone", () => {
  assert.deepEqual(plan({ state: "running", vm: VM }), []);
  assert.deepEqual(plan({ state: "stopped", vm: VM }), ["start --tty=false mvmctl"]);
});

test("another size, an older layout or a broken VM get a new description, and the disk stays", () => {
  const renewed = ["stop mvmctl", "> /Users/me/.lima/mvmctl/lima.yaml", "start --tty=false mvmctl"];
  assert.deepEqual(plan({ state: "running", vm: VM }, { cpus: 8 }), renewed);
  assert.deepEqual(plan({ state: "running", vm: VM }, { memMiB: 4096 }), renewed);
  assert.deepEqual(plan({ state: "outdated", running: true, vm: { ...VM, layout: 0 } }), renewed);
  assert.deepEqual(plan({ state: "outdated", running: false, vm: { ...VM, layout: 0 } }), renewed.slice(1));
  assert.deepEqual(plan({ state: "stopped", vm: VM }, { cpus: 8 }), renewed.slice(1));
  assert.deepEqual(plan({ state: "broken", vm: VM, detail: "" }), ["stop --force mvmctl", ...renewed.slice(1)]);
});

test("what set-up cannot mend is said", () => {
  assert.throws(() => plan({ state: "no-limactl" }), { code: "LIMA_MISSING" });
  assert.throws(() => plan({ state: "newer", vm: VM }), { code: "NEWER_VERSION" });
});

test("VMs inside the VM get the chip's virtualisation from M3 and macOS 15 on", () => {
  assert.ok(nestedVirtualization("Apple M3 Pro", "15.0"));
  assert.ok(nestedVirtualization("Apple M10", "26.1"));
  assert.ok(!nestedVirtualization("Apple M2 Max", "15.1"));
  assert.ok(!nestedVirtualization("Apple M4", "14.7.1"));
  assert.ok(!nestedVirtualization("Intel(R) Core(TM) i7-1068NG7 CPU @ 2.30GHz", "15.1"));
  assert.ok(!nestedVirtualization("", ""));
});

test("sizes are whole numbers within bounds", () => {
  assert.deepEqual([parseLimaCpus("8"), parseLimaMemMiB("16384")], [8, 16384]);
  assert.throws(() => parseLimaCpus("0"), { code: "INVALID_SIZE", message: /--lima-cpus '0'/ });
  assert.throws(() => parseLimaMemMiB("16G"), { code: "INVALID_SIZE", hint: /--lima-mem takes MiB from 2048/ });
});
