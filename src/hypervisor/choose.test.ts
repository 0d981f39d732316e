import assert from "node:assert/strict";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { useDataDirectory } from "../../test/support/data-directory.ts";
import { chooseDriver } from "./choose.ts";
import { driverNamed } from "./drivers.ts";

/** A machine with these programs, each a script, beside what it has anyway. */
function useMachine(programs: Record<string, string>, variables: NodeJS.ProcessEnv = {}) {
  const data = useDataDirectory();
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(data.root, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(data.root, name), 0o755);
  }
  const MVM_FC_BIN = "firecracker" in programs ? join(data.root, "firecracker") : "/nowhere/firecracker";
  return { ...data, ctx: { ...data.ctx, env: { ...data.ctx.env, MVM_FC_BIN, ...variables } } };
}

test("the hypervisor is the one asked for, then the environment's, then the best that works", async () => {
  using machine = useMachine({}, { MVM_HYPERVISOR: "xen" });
  assert.equal((await chooseDriver(machine.ctx, "qemu")).name, "qemu");
  const plain = { ...machine.ctx, env: { ...machine.ctx.env, MVM_HYPERVISOR: "" } };
  assert.equal((await chooseDriver(plain)).name, "qemu");
});

test("a hypervisor that nobody drives is refused with those that there are", async () => {
  using machine = useMachine({}, { MVM_HYPERVISOR: "xen" });
  const unknown = { code: "UNKNOWN_HYPERVISOR", message: /'xen'/, hint: /firecracker, qemu/ };
  assert.throws(() => driverNamed(machine.ctx, "xen"), unknown);
  await assert.rejects(chooseDriver(machine.ctx), unknown);
});

test("a Firecracker that can't be used is passed over with one line that says why", async () => {
  using machine = useMachine({ firecracker: "echo 'Firecracker v1.16.0'" });
  assert.equal((await chooseDriver(machine.ctx)).name, "qemu");
  assert.deepEqual(machine.notes.length, 1);
  assert.match(machine.notes[0]!, /Firecracker 1\.16\.0 can't be used: .*silent.*; QEMU is used instead/);
});

test("a Firecracker that was asked for and can't be used is an error that says what to do", async () => {
  using old = useMachine({ firecracker: "echo 'Firecracker v1.11.0'" });
  const unsupported = { code: "HYPERVISOR_UNSUPPORTED", message: /1\.12 and newer/, hint: /MVM_FC_BIN/ };
  await assert.rejects(chooseDriver(old.ctx, "firecracker"), unsupported);
  using silent = useMachine({ firecracker: "true" });
  await assert.rejects(chooseDriver(silent.ctx, "firecracker"), {
    code: "HYPERVISOR_UNUSABLE",
    message: /say a version/,
  });
  using none = useMachine({});
  const missing = { code: "HYPERVISOR_MISSING", message: /no \/nowhere\/firecracker/, hint: /MVM_FC_BIN/ };
  await assert.rejects(chooseDriver(none.ctx, "firecracker"), missing);
  await assert.rejects(chooseDriver(none.ctx, undefined, { jail: true }), missing);
});

test("a Firecracker that was named and is not there is passed over with one line too", async () => {
  using machine = useMachine({});
  assert.equal((await chooseDriver(machine.ctx)).name, "qemu");
  assert.deepEqual(machine.notes, [
    "Firecracker is not installed: there is no /nowhere/firecracker; QEMU is used instead",
  ]);
});
