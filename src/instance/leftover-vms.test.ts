import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { instanceRecord, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseInstanceName } from "../core/names.ts";
import { identify, isAlive, ownIdentity, VM_DIRECTORY_VARIABLE } from "../core/process-identity.ts";
import { endLeftoverVms } from "./leftover-vms.ts";
import type { InstanceRecord } from "./record.ts";
import { writeRecord } from "./records.ts";

const dead = { ...ownIdentity(), startTime: "1" };

/** Instances with a process each that looks like their VM, by their names. */
async function useVms(records: Record<string, Partial<InstanceRecord>>) {
  const data = useDataDirectory();
  const vms = Object.entries(records).map(([name, record]) => {
    const directory = data.paths.instance(parseInstanceName(name));
    mkdirSync(directory, { recursive: true });
    const vm = spawn("sleep", ["60"], { stdio: "ignore", env: { [VM_DIRECTORY_VARIABLE]: directory } });
    writeRecord(directory, instanceRecord(name, record));
    return vm;
  });
  await Promise.all(vms.map((vm) => once(vm, "spawn")));
  const runs = () => vms.map((vm) => vm.exitCode === null && vm.signalCode === null);
  const end = () => {
    for (const vm of vms) vm.kill("SIGKILL");
    data[Symbol.dispose]();
  };
  return { paths: data.paths, vms, runs, [Symbol.dispose]: end };
}

test("the VM of a start whose mvmctl was killed is ended, and no other", async () => {
  using data = await useVms({
    abandoned: { starter: dead },
    starting: {},
    running: { state: "running", starter: dead, process: ownIdentity() },
  });
  mkdirSync(join(data.paths.instances, "broken"));
  writeFileSync(join(data.paths.instances, "broken", "instance.json"), '{ "state": "starting"');
  const [abandoned] = data.vms;
  const identity = identify(abandoned!.pid!)!;
  assert.deepEqual(endLeftoverVms(data.paths), ["abandoned"]);
  for (let tries = 0; isAlive(identity) && tries < 500; tries++) await delay(10);
  await delay(10);
  assert.deepEqual(data.runs(), [false, true, true]);
  assert.deepEqual(endLeftoverVms(data.paths), []);
});

test("without instances there is nothing to end", () => {
  using data = useDataDirectory();
  assert.deepEqual(endLeftoverVms(data.paths), []);
});
