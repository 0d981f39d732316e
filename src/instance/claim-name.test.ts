import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { instanceRecord, useDataDirectory } from "../../test/support/data-directory.ts";
import { parseInstanceName } from "../core/names.ts";
import { ownIdentity } from "../core/process-identity.ts";
import { MiB } from "../core/sizes.ts";
import { claimName } from "./claim-name.ts";
import type { InstanceRecord } from "./record.ts";
import { instanceStatus, writeRecord } from "./records.ts";

const svc = parseInstanceName("svc");
const DISK = "precious";

function recordOf(state: InstanceRecord["state"], other: Partial<InstanceRecord> = {}): InstanceRecord {
  return instanceRecord(svc, { state, dataDiskMiB: DISK.length / MiB, ...other });
}

/** An instance `svc` of that record, with a data disk and a log. */
function useInstance(record: InstanceRecord) {
  const data = useDataDirectory();
  const directory = data.paths.instance(svc);
  mkdirSync(join(directory, "jail"), { recursive: true });
  writeFileSync(join(directory, "jail", "file"), "old");
  writeFileSync(join(directory, "console.log"), "old");
  writeFileSync(join(directory, "data.img"), DISK);
  writeRecord(directory, record);
  const ended: string[] = [];
  const claim = (onEnd?: () => void, other: Partial<InstanceRecord> = {}) =>
    claimName(data.paths, svc, recordOf("starting", other), async ({ state }) => {
      ended.push(state);
      onEnd?.();
    });
  return { ...data, directory, ended, claim };
}

test("a name that is free is claimed, and then taken", async () => {
  using data = useDataDirectory();
  const claim = () => claimName(data.paths, svc, recordOf("starting"), async () => {});
  assert.equal(await claim(), data.paths.instance(svc));
  await assert.rejects(claim(), { code: "INSTANCE_EXISTS", message: /is starting/ });
  assert.deepEqual(readdirSync(data.paths.instances), ["svc"]);
});

test("an ended instance is taken over where it is, and nothing of it is left but its data disk", async () => {
  using data = useInstance(recordOf("stopped"));
  await data.claim();
  assert.deepEqual(readdirSync(data.directory).sort(), ["data.img", "instance.json"]);
  assert.equal(readFileSync(join(data.directory, "data.img"), "utf8"), DISK);
  assert.equal(instanceStatus(data.paths, svc)?.state, "starting");
  assert.deepEqual(data.ended, []);
});

test("of many that claim an ended instance's name one gets it, and its data disk is there", async () => {
  using data = useInstance(recordOf("stopped"));
  const claims = await Promise.allSettled(Array.from({ length: 8 }, () => data.claim()));
  assert.equal(claims.filter(({ status }) => status === "fulfilled").length, 1);
  for (const claim of claims) if (claim.status === "rejected") assert.equal(claim.reason.code, "INSTANCE_EXISTS");
  assert.equal(readFileSync(join(data.directory, "data.img"), "utf8"), DISK);
  assert.deepEqual(readdirSync(data.paths.instances), ["svc"]);
});

test("a dead instance's VM is ended before anything of it is removed", async () => {
  using data = useInstance({ ...recordOf("starting"), starter: { ...ownIdentity(), startTime: "1" } });
  await data.claim(() => assert.ok(existsSync(join(data.directory, "console.log"))));
  assert.deepEqual(data.ended, ["starting"]);
  assert.equal(readFileSync(join(data.directory, "data.img"), "utf8"), DISK);
});

test("a claim that fails on the way leaves the data disk", async () => {
  using data = useInstance({ ...recordOf("running"), process: { ...ownIdentity(), startTime: "1" } });
  const failure = new Error("it does not end");
  await assert.rejects(
    data.claim(() => {
      throw failure;
    }),
    failure,
  );
  assert.equal(readFileSync(join(data.directory, "data.img"), "utf8"), DISK);
  assert.equal(instanceStatus(data.paths, svc)?.state, "dead");
});

test("a data disk goes on with its own template in its own size, and is never replaced in silence", async () => {
  using data = useInstance(recordOf("stopped"));
  const refused = async (other: Partial<InstanceRecord>, message: RegExp, hint: RegExp) => {
    await assert.rejects(
      data.claim(() => {}, other),
      { code: "DATA_DISK_MISMATCH", message, hint },
    );
    assert.equal(readFileSync(join(data.directory, "data.img"), "utf8"), DISK);
    assert.equal(instanceStatus(data.paths, svc)?.state, "stopped");
  };
  await refused({ template: "redis" }, /of the template hello and not of redis/, /mvmctl rm svc/);
  await refused({ dataDiskMiB: 128 }, /--data-disk 128 was asked for/, /leave --data-disk out.*mvmctl rm svc/);
  await refused({ dataDiskMiB: 0 }, /--data-disk 0 was asked for/, /mvmctl rm svc/);

  rmSync(join(data.directory, "data.img"));
  await data.claim(() => {}, { template: "redis", dataDiskMiB: 128 });
  assert.equal(instanceStatus(data.paths, svc)?.state, "starting");
});

test("an instance whose record can't be read is in use until somebody removes it", async () => {
  using data = useInstance(recordOf("stopped"));
  rmSync(join(data.directory, "instance.json"));
  await assert.rejects(data.claim(), { code: "INSTANCE_EXISTS", hint: /mvmctl rm --force svc/ });
  assert.equal(readFileSync(join(data.directory, "data.img"), "utf8"), DISK);
});
