import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { findImage } from "./image.ts";

const root = mkdtempSync(join(tmpdir(), "mvm-image-"));
after(() => rmSync(root, { recursive: true }));

/** What a flake's package could have built. */
function output(files: Record<string, string>): string {
  const directory = mkdtempSync(join(root, "output-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return directory;
}

test("an image of ours: kernel, initrd, root file system, and what it says of itself", () => {
  const guest = '{"version":1,"kernelCommandLine":"panic=1","agent":true,"name":"hello","hostname":"hello"}';
  const directory = output({ vmlinux: "", initrd: "", "rootfs.erofs": "", "guest.json": guest });
  assert.deepEqual(findImage(directory), {
    kernel: join(directory, "vmlinux"),
    initrd: join(directory, "initrd"),
    rootfs: join(directory, "rootfs.erofs"),
    rootfsType: "erofs",
    kernelCommandLine: "panic=1",
    agent: true,
  });
});

test("an image made by others needs a kernel and a root file system, and no more", () => {
  for (const [kernel, type] of [
    ["bzImage", "ext4"],
    ["vmlinux", "squashfs"],
  ] as const) {
    const directory = output({ [kernel]: "", [`rootfs.${type}`]: "" });
    assert.deepEqual(findImage(directory), {
      kernel: join(directory, kernel),
      initrd: undefined,
      rootfs: join(directory, `rootfs.${type}`),
      rootfsType: type,
      kernelCommandLine: "",
      agent: false,
    });
  }
});

test("what is missing is named, beside what is there", () => {
  const missing: [Record<string, string>, RegExp, RegExp][] = [
    [{ "rootfs.ext4": "" }, /lacks a kernel \(vmlinux or bzImage\)$/, /has: rootfs\.ext4/],
    [{ vmlinux: "" }, /lacks a root file system/, /has: vmlinux/],
    [{}, /lacks a kernel .* and a root file system/, /has: nothing/],
    [{ vmlinux: "", "rootfs.xfs": "" }, /lacks a root file system/, /rootfs\.xfs, vmlinux/],
  ];
  for (const [files, message, detail] of missing) {
    assert.throws(() => findImage(output(files)), { code: "IMAGE_INCOMPLETE", message, detail, hint: /mkGuest/ });
  }
});

test("an output that is one file is no image", () => {
  const file = join(output({ tool: "" }), "tool");
  assert.throws(() => findImage(file), { code: "IMAGE_INCOMPLETE", detail: /it is a single file/ });
});

test("a description that does not fit is refused: it would end up on a kernel command line", () => {
  const bad = [
    "",
    "{",
    '{"version":2}',
    '{"version":1,"kernelCommandLine":"a\\nb"}',
    '{"version":1,"kernelCommandLine":5}',
    '{"version":1,"agent":"yes"}',
  ];
  for (const guest of bad) {
    const directory = output({ vmlinux: "", "rootfs.erofs": "", "guest.json": guest });
    assert.throws(() => findImage(directory), { code: guest.includes("2}") ? "NEWER_VERSION" : "CORRUPT_FILE" }, guest);
  }
});
