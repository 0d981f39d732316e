import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseDriver } from "./choose.ts";

test("the hypervisor is the one asked for, then the environment's, then QEMU", () => {
  assert.equal(chooseDriver({ cacheDir: "/cache", env: {} }).name, "qemu");
  assert.equal(chooseDriver({ cacheDir: "/cache", env: { MVM_HYPERVISOR: "xen" } }, "qemu").name, "qemu");
});

test("a hypervisor that nobody drives is refused with those that there are", () => {
  const unknown = { code: "UNKNOWN_HYPERVISOR", message: /'xen'/, hint: /qemu/ };
  assert.throws(() => chooseDriver({ cacheDir: "/cache", env: {} }, "xen"), unknown);
  assert.throws(() => chooseDriver({ cacheDir: "/cache", env: { MVM_HYPERVISOR: "xen" } }), unknown);
});
