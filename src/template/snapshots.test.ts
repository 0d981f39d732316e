import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { addSnapshot, QEMU_HERE, useDataDirectory } from "../../test/support/data-directory.ts";
import type { HypervisorIdentity } from "../hypervisor/driver.ts";
import { damageOf, misfits, readSnapshots, type StoredSnapshot, snapshotKey, writeGuard } from "./snapshots.ts";

/** A directory with one snapshot in it. */
function useSnapshot() {
  const data = useDataDirectory();
  const directory = join(data.root, "snapshots");
  const path = addSnapshot(directory, QEMU_HERE);
  const [stored] = readSnapshots(directory) as [StoredSnapshot];
  return { ...data, directory, path, stored, guard: join(path, "guard.json") };
}

test("a snapshot's key is a readable directory name that tells hypervisors apart", () => {
  assert.equal(snapshotKey(QEMU_HERE), "qemu-7.2.0-tcg-x86_64-l1-max");
  const kvm: HypervisorIdentity = {
    ...QEMU_HERE,
    accelerator: "kvm",
    cpuModel: "Intel(R) Xeon(R) CPU @ 2.20GHz 0a1b2c3d",
  };
  assert.equal(snapshotKey(kvm), "qemu-7.2.0-kvm-x86_64-l1-intel-r-xeon-r-cpu-2-20ghz-0a1b2c3d");
  const changed: Partial<HypervisorIdentity>[] = [
    { version: "8.0.0" },
    { accelerator: "kvm" },
    { architecture: "aarch64" },
    { cpuModel: "host" },
    { layout: 2 },
  ];
  const keys = new Set(changed.map((change) => snapshotKey({ ...QEMU_HERE, ...change })));
  assert.equal(keys.size, changed.length);
  assert.ok(!keys.has(snapshotKey(QEMU_HERE)));
});

test("hosts whose CPUs differ only in their features have different keys, however long the CPU's name is", () => {
  const host = (features: string): HypervisorIdentity => ({
    ...QEMU_HERE,
    cpuModel: `Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz (Ice Lake) ${features}`,
  });
  assert.notEqual(snapshotKey(host("0a1b2c3d")), snapshotKey(host("ffffffff")));
  assert.ok(snapshotKey(host("0a1b2c3d")).length <= 63);
});

test("a snapshot fits a host that is the same in everything; else each difference is named", () => {
  assert.deepEqual(misfits(QEMU_HERE, { ...QEMU_HERE }), []);
  assert.deepEqual(misfits({ ...QEMU_HERE, version: "8.0.0", cpuModel: "host" }, QEMU_HERE), [
    "hypervisor version is 8.0.0 there and 7.2.0 here",
    "CPU is host there and max here",
  ]);
});

test("snapshots are read in the order of their keys; what is half made or no snapshot is none", () => {
  using data = useSnapshot();
  addSnapshot(data.directory, { ...QEMU_HERE, version: "10.0.0" });
  mkdirSync(join(data.directory, ".staging-1-1-00000000-x"));
  mkdirSync(join(data.directory, "empty"));
  assert.deepEqual(
    readSnapshots(data.directory).map(({ key }) => key),
    ["qemu-10.0.0-tcg-x86_64-l1-max", "qemu-7.2.0-tcg-x86_64-l1-max"],
  );
  assert.deepEqual(readSnapshots(join(data.root, "none")), []);
});

test("a damaged description is told, and the other snapshots are read all the same", () => {
  using data = useSnapshot();
  writeFileSync(join(addSnapshot(data.directory, { ...QEMU_HERE, version: "8.0.0" }), "snapshot.json"), "{}");
  const broken: string[] = [];
  assert.equal(readSnapshots(data.directory, (key, why) => broken.push(`${key}: ${why}`)).length, 1);
  assert.match(broken.join(), /^qemu-8\.0\.0.*has no version/);
});

test("unaltered files are no damage, and are read only once: then the guard vouches for them", async () => {
  using data = useSnapshot();
  assert.equal(await damageOf(data.stored), undefined);
  const guard = readFileSync(data.guard, "utf8");
  assert.equal(await damageOf(data.stored), undefined);
  assert.equal(readFileSync(data.guard, "utf8"), guard);
});

test("a file that is missing, cut or altered is named", async () => {
  const damages: [string, (path: string) => void, RegExp][] = [
    ["vmstate.bin", (path) => rmSync(path), /vmstate\.bin is missing/],
    ["mem.bin", (path) => truncateSync(path, 10), /mem\.bin has 10 bytes instead of 1048576/],
    ["mem.bin", (path) => writeFileSync(path, "x", { flag: "r+" }), /mem\.bin was altered/],
    ["vmstate.bin", (path) => writeFileSync(path, "tHe state"), /vmstate\.bin was altered/],
  ];
  for (const [file, damage, expected] of damages) {
    using data = useSnapshot();
    writeGuard(data.path, data.stored.snapshot);
    damage(join(data.path, file));
    assert.match((await damageOf(data.stored)) ?? "none", expected);
    assert.match((await damageOf(data.stored)) ?? "none", expected, "what is damaged stays so");
  }
});

test("a file whose times were put back after a change is looked at all the same", async () => {
  using data = useSnapshot();
  const path = join(data.path, "vmstate.bin");
  utimesSync(path, 1, 1);
  writeGuard(data.path, data.stored.snapshot);
  writeFileSync(path, "tHe state", { flag: "r+" });
  utimesSync(path, 1, 1);
  assert.match((await damageOf(data.stored)) ?? "none", /was altered/);
});

test("a damaged guard vouches for nothing, and is written anew", async () => {
  using data = useSnapshot();
  for (const text of ["", "{}", '{"version":1,"files":{}}']) {
    writeFileSync(data.guard, text);
    assert.equal(await damageOf(data.stored), undefined);
    assert.match(readFileSync(data.guard, "utf8"), /vmstate\.bin/);
  }
});

test("what was found damaged gets no guard", async () => {
  using data = useSnapshot();
  writeFileSync(join(data.path, "vmstate.bin"), "tHe state");
  await damageOf(data.stored);
  assert.ok(!existsSync(data.guard));
});
