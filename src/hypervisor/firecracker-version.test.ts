import assert from "node:assert/strict";
import { test } from "node:test";
import { firecrackerFeatures, parseFirecrackerVersion } from "./firecracker-version.ts";

test("every version from 1.12 is driven, and what it lacks is known", () => {
  assert.equal(firecrackerFeatures("1.12.0").vsockOverride, false);
  assert.equal(firecrackerFeatures("1.15.1").resumeKeepsVsock, true);
  assert.deepEqual(firecrackerFeatures("1.16.1"), { version: "1.16.1", vsockOverride: true, resumeKeepsVsock: false });
  assert.equal(firecrackerFeatures("1.17.0").vsockOverride, true);
});

test("versions that don't work are refused with why and what to install", () => {
  const refused = (message: RegExp) => ({
    code: "HYPERVISOR_UNSUPPORTED",
    message,
    hint: /setup --firecracker.*MVM_FC_BIN/,
  });
  assert.throws(() => firecrackerFeatures("1.16.0"), refused(/1\.16\.0.*silent after a restore/));
  assert.throws(() => firecrackerFeatures("1.11.9"), refused(/1\.12 and newer/));
  assert.throws(() => firecrackerFeatures("2.0.0"), refused(/version 1 only/));
  assert.throws(() => firecrackerFeatures("0.25.2"), refused(/version 1 only/));
  assert.throws(() => firecrackerFeatures("latest"), refused(/no version number/));
});

test("the version is found in what the program and its API say", () => {
  assert.equal(parseFirecrackerVersion("Firecracker v1.16.1\n\nSupported snapshot data format versions"), "1.16.1");
  assert.equal(parseFirecrackerVersion("1.12.0-dev"), "1.12.0");
  assert.equal(parseFirecrackerVersion("jailer v1"), undefined);
});
