import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MvmError } from "../core/errors.ts";
import { MiB } from "../core/sizes.ts";
import { failed, guarded } from "./check.ts";
import { firecrackerCheck, kvmCheck } from "./check-hypervisor.ts";
import { emptyBuildGroup } from "./check-nix.ts";
import { availableMemory, judge } from "./check-resources.ts";
import { checkIsolation } from "./check-tools.ts";
import { nodeCheck } from "./doctor.ts";

describe("what the doctor makes of what it sees", () => {
  test("a Node.js older than 24 fails", () => {
    assert.equal(nodeCheck("24.0.0").state, "ok");
    assert.equal(nodeCheck("9.11.2").state, "failed");
  });

  test("a group of build users without members is named, any other is not", () => {
    assert.match(emptyBuildGroup("root:x:0:\nnixbld:x:30000:\n") ?? "", /no members/);
    assert.equal(emptyBuildGroup("nixbld:x:30000:nixbld1,nixbld2\n"), undefined);
    assert.equal(emptyBuildGroup("root:x:0:\nmy-nixbld:x:1:\n"), undefined);
  });

  test("no KVM is a warning with its reason, and a missing permission has a command that mends it", () => {
    assert.equal(kvmCheck(undefined).state, "ok");
    const absent = kvmCheck("there is no /dev/kvm");
    assert.deepEqual([absent.state, absent.mend], ["warning", undefined]);
    const forbidden = kvmCheck("you may not open /dev/kvm (sudo usermod -aG kvm $USER, and log in again)");
    assert.match(forbidden.mend ?? "", /^sudo usermod -aG /);
    assert.match(forbidden.reason, /^you may not open \/dev\/kvm; guests are emulated/);
  });

  test("the one Firecracker whose guests go silent is warned of", () => {
    assert.equal(firecrackerCheck("/bin/firecracker", "1.16.1").state, "ok");
    assert.match(firecrackerCheck("/bin/firecracker", "1.16.0").reason, /silent/);
    assert.equal(firecrackerCheck("/bin/true", undefined).state, "warning");
  });

  test("little of something is a warning, too little a failure", () => {
    const bounds = { enough: 100 * MiB, least: 10 * MiB };
    const state = (bytes: number) => judge("disk", bytes, bounds, "free", "tidy up").state;
    assert.deepEqual([100 * MiB, 100 * MiB - 1, 10 * MiB - 1].map(state), ["ok", "warning", "failed"]);
    assert.equal(judge("disk", 0, bounds, "free", "tidy up").mend, "tidy up");
  });

  test("the memory that is available is read, not the memory that is free", () => {
    assert.equal(availableMemory("MemTotal: 8 kB\nMemFree: 2 kB\nMemAvailable:    4 kB\n"), 4096);
    assert.equal(availableMemory("MemFree: 2 kB\n"), undefined);
  });

  test("a check that can't be made fails with its error's hint", async () => {
    const checks = await guarded("disk", () => {
      throw new MvmError("FILE_FAILED", "could not look", { hint: "look again" });
    });
    assert.deepEqual(checks, [failed("disk", "could not look", "look again")]);
  });
});

test("what isolated guests lack is told, and is no fault of a machine that runs none", () => {
  const [check] = checkIsolation({ PATH: "/nowhere" });
  assert.equal(check?.state, "ok");
  assert.match(check!.reason, /--isolate can't be used: slirp4netns.*apt-get install slirp4netns/);
});
