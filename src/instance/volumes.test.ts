import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { parseVolume } from "./volumes.ts";

const cwd = realpathSync(mkdtempSync(join(tmpdir(), "mvm-volumes-")));
after(() => rmSync(cwd, { recursive: true }));
for (const name of ["config", "odd:name", "a:"]) mkdirSync(join(cwd, name));
writeFileSync(join(cwd, "file"), "");

test("a volume is a directory of the host and a path in the guest", () => {
  assert.deepEqual(parseVolume("config:/mnt/config", cwd), { hostPath: join(cwd, "config"), guestPath: "/mnt/config" });
  assert.deepEqual(parseVolume(`${cwd}/config:/srv/app/`, "/"), {
    hostPath: join(cwd, "config"),
    guestPath: "/srv/app",
  });
  assert.deepEqual(parseVolume(".:/srv//app", join(cwd, "config")), {
    hostPath: join(cwd, "config"),
    guestPath: "/srv/app",
  });
});

test("the host's directory may have colons in its name", () => {
  assert.equal(parseVolume("odd:name:/srv", cwd).hostPath, join(cwd, "odd:name"));
  assert.equal(parseVolume("a::/srv", cwd).hostPath, join(cwd, "a:"));
});

test("a link to a directory is that directory", () => {
  symlinkSync("config", join(cwd, "link"));
  symlinkSync("nowhere", join(cwd, "dangling"));
  assert.equal(parseVolume("link:/mnt/config", cwd).hostPath, join(cwd, "config"));
  assert.throws(() => parseVolume("dangling:/mnt/config", cwd), { code: "VOLUME_NOT_FOUND" });
});

test("what is no volume, and what would break the guest's system, is refused", () => {
  for (const text of ["", "config", ":/mnt/config", "config:mnt"])
    assert.throws(() => parseVolume(text, cwd), { code: "INVALID_VOLUME" }, text);
  const forbidden = [
    "/",
    "//",
    "/proc",
    "/proc/sys",
    "//proc",
    "/sys",
    "/dev/shm",
    "/run",
    "/mnt/../proc",
    "/mnt/./x",
    "/mnt/a\nb",
  ];
  for (const path of forbidden)
    assert.throws(() => parseVolume(`config:${path}`, cwd), { code: "INVALID_VOLUME" }, path);
});

test("paths that only begin like the system's are not", () => {
  for (const path of ["/process", "/devices", "/running", "/mnt/run", "/srv/..hidden"])
    assert.equal(parseVolume(`config:${path}`, cwd).guestPath, path);
});

test("the host's directory has to be there", () => {
  for (const [name, hint] of [
    ["missing", /mkdir -p .*missing/],
    ["file", /put the file into a directory/],
  ] as const) {
    assert.throws(() => parseVolume(`${name}:/srv`, cwd), {
      code: "VOLUME_NOT_FOUND",
      message: new RegExp(`${cwd}/${name} is not a directory`),
      hint,
    });
  }
});
