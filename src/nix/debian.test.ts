import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { sha256 } from "../core/digests.ts";
import { run } from "../core/process.ts";
import { lockDebianPackages, realiseDebianLock } from "./debian.ts";
import type { DebianLock, DebianRequest } from "./debian-lock.ts";

/** These tests use the machine's own apt, dpkg and Nix, with an archive, a cache and a Nix store of their own. */

const root = mkdtempSync(join(tmpdir(), "mvm-debian-"));
after(async () => {
  await run("chmod", ["-R", "u+w", root]); // a Nix store's directories are read-only
  rmSync(root, { recursive: true });
});

interface TestPackage {
  readonly version?: string;
  readonly depends?: string;
  readonly provides?: string;
  readonly source?: string;
  readonly files?: Readonly<Record<string, string>>;
}

const BASE: Readonly<Record<string, TestPackage>> = {
  "linux-image-cloud-amd64": { depends: "linux-image-6.1.0-1-cloud-amd64" },
  "linux-image-6.1.0-1-cloud-amd64": { depends: "initramfs-tools", files: { "boot/vmlinuz": "kernel" } },
  "initramfs-tools": {},
  "busybox-static": { version: "1:1.35.0-4~deb12u1", files: { "bin/busybox": "#!/bin/sh\n" } },
  "erofs-utils": { depends: "libc6" },
  libc6: {},
  // Of web's own source: apt upgrades the installed packages of a source together.
  debconf: { source: "web", depends: "perl", provides: "debconf-2.0" },
  perl: {},
};

const REQUEST: DebianRequest = {
  image: "web-x86_64-linux",
  architecture: "amd64",
  kernel: "linux-image-cloud-amd64",
  busybox: "busybox-static",
  tools: ["erofs-utils"],
  packages: ["web"],
  excluded: ["debconf"],
};

/** An archive with its lists, and a directory for a lock, a cache and a Nix store. */
class Machine {
  readonly directory = mkdtempSync(join(root, "machine-"));
  readonly archive = join(this.directory, "debian");
  readonly lockFile = join(this.directory, "debian.lock");
  readonly progress: string[] = [];
  readonly env: NodeJS.ProcessEnv;
  readonly options;

  private constructor() {
    const state = (name: string) => join(this.directory, name);
    this.env = {
      PATH: process.env["PATH"],
      APT_CONFIG: state("apt.conf"),
      NIX_STORE_DIR: state("store"),
      NIX_STATE_DIR: state("nix-state"),
      NIX_LOG_DIR: state("nix-log"),
      SOURCE_DATE_EPOCH: "1", // a package that is built again is the same
    };
    this.options = {
      cacheDirectory: state("cache"),
      env: this.env,
      onProgress: (text: string) => void this.progress.push(text),
    };
    mkdirSync(state("lists"));
    writeFileSync(state("sources.list"), `deb [trusted=yes] file:${this.archive} test main\n`);
    writeFileSync(
      state("apt.conf"),
      `APT::Architecture "amd64";\nDir::State::lists "${state("lists")}";\nDir::Etc::sourcelist "${state("sources.list")}";\n` +
        'Dir::Etc::sourceparts "/dev/null";\nAPT::Sandbox::User "root";\nAcquire::Languages "none";\n',
    );
  }

  static async with(packages: Readonly<Record<string, TestPackage>>): Promise<Machine> {
    const machine = new Machine();
    await machine.offer({ ...BASE, ...packages });
    return machine;
  }

  /** Makes these packages, and only these, the archive's content, and updates apt's lists. */
  async offer(packages: Readonly<Record<string, TestPackage>>): Promise<void> {
    rmSync(this.archive, { recursive: true, force: true });
    const lists = join(this.archive, "dists", "test", "main", "binary-amd64");
    mkdirSync(lists, { recursive: true });
    mkdirSync(join(this.archive, "pool"));
    const stanzas: string[] = [];
    for (const [name, content] of Object.entries(packages)) stanzas.push(await this.#build(name, content));
    const index = stanzas.join("\n");
    writeFileSync(join(lists, "Packages"), index);
    const digest = ` ${sha256(index)} ${Buffer.byteLength(index)} main/binary-amd64/Packages`;
    writeFileSync(
      join(this.archive, "dists", "test", "Release"),
      `Suite: test\nArchitectures: amd64\nComponents: main\nSHA256:\n${digest}\n`,
    );
    await succeed("apt-get", ["update", "-qq"], this.env);
  }

  async #build(name: string, content: TestPackage): Promise<string> {
    const { version = "1.0", depends, provides, source } = content;
    const control = [
      `Package: ${name}`,
      `Version: ${version}`,
      "Architecture: amd64",
      "Maintainer: Test <test@example.org>",
      ...(depends ? [`Depends: ${depends}`] : []),
      ...(provides ? [`Provides: ${provides}`] : []),
      ...(source ? [`Source: ${source}`] : []),
      "Description: test",
      "",
    ].join("\n");
    const path = `pool/${name}_${version.replace(/^\d+:/, "")}_amd64.deb`;
    const deb = await buildDeb(control, content.files ?? {}, this.env);
    writeFileSync(join(this.archive, path), deb);
    return `${control}Filename: ${path}\nSize: ${deb.length}\nSHA256: ${sha256(deb)}\n`;
  }

  lock(changes: Partial<DebianRequest> = {}, update = false): Promise<boolean> {
    return lockDebianPackages(this.lockFile, { ...REQUEST, ...changes }, { ...this.options, update });
  }

  realise(): Promise<void> {
    return realiseDebianLock(this.lockFile, REQUEST.image, this.options);
  }

  get locked(): DebianLock {
    return JSON.parse(readFileSync(this.lockFile, "utf8")) as DebianLock;
  }

  get image() {
    return this.locked.images[REQUEST.image]!;
  }

  async emptyStore(): Promise<void> {
    await succeed("sh", ["-c", 'chmod -R u+w "$NIX_STORE_DIR" && rm -r "$NIX_STORE_DIR" "$NIX_STATE_DIR"'], this.env);
  }

  /** The paths in the Nix store, without their hashes. */
  async storeContent(): Promise<string[]> {
    const text = await succeed("sh", ["-c", "nix-store --dump-db | grep ^$NIX_STORE_DIR/ | sort -u"], this.env);
    return text
      .split("\n")
      .filter(Boolean)
      .map((path) => path.replace(/^.*\/[0-9a-z]{32}-/, ""))
      .sort();
  }
}

async function succeed(command: string, args: string[], env: NodeJS.ProcessEnv): Promise<string> {
  const result = await run(command, args, { env });
  assert.equal(result.exitCode, 0, result.stderr);
  return result.stdout;
}

const builtDebs = new Map<string, Buffer>();

/** Most packages are the same in every test: each is built once. */
async function buildDeb(
  control: string,
  files: Readonly<Record<string, string>>,
  env: NodeJS.ProcessEnv,
): Promise<Buffer> {
  const key = JSON.stringify([control, files]);
  const known = builtDebs.get(key);
  if (known) return known;
  const tree = mkdtempSync(join(root, "tree-"));
  for (const [path, content] of Object.entries({ "DEBIAN/control": control, ...files })) {
    mkdirSync(join(tree, path, ".."), { recursive: true });
    writeFileSync(join(tree, path), content, { mode: 0o755 });
  }
  await succeed("dpkg-deb", ["--root-owner-group", "-Znone", "--build", tree, `${tree}.deb`], env);
  const deb = readFileSync(`${tree}.deb`);
  builtDebs.set(key, deb);
  return deb;
}

test("a lock pins the packages and all they need, and the kernel alone", async () => {
  const machine = await Machine.with({
    web: { version: "2:3.1-1~deb12u1", depends: "libweb" },
    libweb: { depends: "libc6" },
  });
  assert.equal(await machine.lock(), true);

  assert.equal(machine.image.kernel, "linux-image-6.1.0-1-cloud-amd64_1.0_amd64.deb");
  assert.deepEqual(machine.image.tools, ["erofs-utils_1.0_amd64.deb", "libc6_1.0_amd64.deb"]);
  assert.deepEqual(machine.image.packages, [
    "libc6_1.0_amd64.deb",
    "libweb_1.0_amd64.deb",
    "web_2-3.1-1-deb12u1_amd64.deb",
  ]);
  assert.ok(!Object.keys(machine.locked.files).some((name) => name.startsWith("initramfs-tools")));

  const path = "pool/web_3.1-1~deb12u1_amd64.deb";
  const deb = readFileSync(join(machine.archive, path));
  assert.deepEqual(machine.locked.files["web_2-3.1-1-deb12u1_amd64.deb"], {
    name: "web",
    version: "2:3.1-1~deb12u1",
    architecture: "amd64",
    size: deb.length,
    sha256: sha256(deb),
    archive: "debian",
    path: path.replace("~", "%7e"),
  });
});

test("excluded packages are left out, with what only they need", async () => {
  const machine = await Machine.with({ web: { depends: "debconf (= 1.0) | debconf-2.0, libc6" } });
  await machine.lock();
  assert.deepEqual(machine.image.packages, ["libc6_1.0_amd64.deb", "web_1.0_amd64.deb"]);

  await machine.lock({ excluded: ["no-such-package"] });
  assert.deepEqual(machine.image.packages.length, 4, "an unknown exclusion excludes nothing");
});

test("locked versions stay while newer ones come, until other packages or an update are asked for", async () => {
  const machine = await Machine.with({ web: {}, extra: {} });
  await machine.lock();
  const before = readFileSync(machine.lockFile);

  await machine.offer({ ...BASE, web: { version: "2.0" }, extra: {} });
  assert.equal(await machine.lock(), false);
  assert.deepEqual(readFileSync(machine.lockFile), before);

  assert.equal(await machine.lock({}, true), true);
  assert.deepEqual(machine.image.packages, ["web_2.0_amd64.deb"]);
  assert.ok(!("web_1.0_amd64.deb" in machine.locked.files), "what no image uses is dropped");

  assert.equal(await machine.lock({ packages: ["extra", "web"] }), true);
  assert.deepEqual(machine.image.packages, ["extra_1.0_amd64.deb", "web_2.0_amd64.deb"]);
});

test("locking again from nothing gives the same bytes, and other images' part stays", async () => {
  const machine = await Machine.with({ web: {}, other: {} });
  await machine.lock();
  const alone = readFileSync(machine.lockFile);
  await machine.lock({ image: "other-x86_64-linux", packages: ["other"] });
  assert.deepEqual(Object.keys(machine.locked.images), ["other-x86_64-linux", "web-x86_64-linux"]);
  assert.deepEqual(machine.image, (JSON.parse(String(alone)) as DebianLock).images[REQUEST.image]);

  rmSync(machine.lockFile);
  await machine.lock();
  assert.deepEqual(readFileSync(machine.lockFile), alone);
});

test("every locked file comes into the Nix store once, and then nothing is asked of anyone", async () => {
  const machine = await Machine.with({ web: { version: "1:2.0~rc1", depends: "libc6" } });
  await machine.lock();
  await machine.realise();
  assert.deepEqual(await machine.storeContent(), [
    "busybox-static_1-1.35.0-4-deb12u1_amd64.deb",
    "erofs-utils_1.0_amd64.deb",
    "libc6_1.0_amd64.deb",
    "linux-image-6.1.0-1-cloud-amd64_1.0_amd64.deb",
    "mvm-busybox",
    "web_1-2.0-rc1_amd64.deb",
  ]);

  rmSync(machine.archive, { recursive: true });
  rmSync(machine.options.cacheDirectory, { recursive: true });
  machine.progress.length = 0;
  await machine.realise();
  assert.deepEqual(machine.progress, []);
});

test("what is missing in the store comes from the cache, and a damaged file of the cache is fetched again", async () => {
  const machine = await Machine.with({ web: {} });
  await machine.lock();
  await machine.realise();
  await machine.emptyStore();
  const cached = join(machine.options.cacheDirectory, "debs", "web_1.0_amd64.deb");
  const good = readFileSync(cached);
  writeFileSync(cached, Buffer.alloc(good.length));
  machine.progress.length = 0;
  await machine.realise();
  assert.deepEqual(machine.progress, ["downloading 1 Debian package (1 MiB)"]);
  assert.deepEqual(readFileSync(cached), good);
});

test("a locked version that is gone is named, and nothing else is put in its place", async () => {
  const machine = await Machine.with({ web: {} });
  await machine.lock();
  await machine.offer({ ...BASE, web: { version: "2.0" } });
  await assert.rejects(machine.realise(), {
    code: "DEBIAN_PACKAGES_GONE",
    message: /locked web 1\.0$/,
    hint: /remove debian\.lock/,
  });
});

test("an archive that gives other bytes than the locked ones is not believed", async () => {
  const machine = await Machine.with({ web: {} });
  await machine.lock();
  copyFileSync(join(machine.archive, "pool/libc6_1.0_amd64.deb"), join(machine.archive, "pool/web_1.0_amd64.deb"));
  await assert.rejects(machine.realise(), { code: "DEBIAN_PACKAGES_GONE", message: /locked web 1\.0$/ });
  assert.ok(!statSync(join(machine.options.cacheDirectory, "debs", "web_1.0_amd64.deb"), { throwIfNoEntry: false }));
});

test("packages that can't be had are named", async () => {
  const machine = await Machine.with({ web: { provides: "httpd" }, broken: { depends: "nowhere" } });
  await assert.rejects(machine.lock({ packages: ["web", "wbe"] }), {
    code: "DEBIAN_PACKAGE_UNKNOWN",
    message: /package wbe/,
  });
  await assert.rejects(machine.lock({ packages: ["httpd"] }), {
    code: "DEBIAN_PACKAGE_UNKNOWN",
    message: /httpd is no package of its own/,
  });
  await assert.rejects(machine.lock({ packages: ["broken"] }), {
    code: "DEBIAN_PACKAGES_UNRESOLVED",
    detail: /nowhere/,
  });
});

test("a name is never taken for a pattern", async () => {
  const machine = await Machine.with({ libxab: {} });
  await assert.rejects(machine.lock({ packages: ["libx.b"] }), { code: "DEBIAN_PACKAGE_UNKNOWN", message: /libx\.b/ });
});

test("a machine without package lists, or without apt, is told what to do", async () => {
  const machine = await Machine.with({ web: {} });
  const { env } = machine;
  const withoutApt = { ...machine.options, env: { ...env, PATH: "/nonexistent" } };
  await assert.rejects(lockDebianPackages(machine.lockFile, REQUEST, withoutApt), {
    code: "APT_MISSING",
    hint: /nixpkgs/,
  });
  rmSync(join(machine.directory, "lists"), { recursive: true });
  await assert.rejects(machine.lock(), { code: "APT_LISTS_MISSING", hint: /apt-get update/ });
});

test("a lock that is missing, damaged, newer or hostile is refused before anything is fetched", async () => {
  const machine = await Machine.with({ web: {} });
  await assert.rejects(machine.realise(), { code: "DEBIAN_LOCK_MISSING" });
  await machine.lock();
  const good = readFileSync(machine.lockFile, "utf8");
  const file = '"path": "pool/web_1.0_amd64.deb"';
  assert.ok(good.includes(file));
  for (const [code, bad] of [
    ["CORRUPT_FILE", good.slice(0, 100)],
    ["CORRUPT_FILE", good.replace(file, '"path": "pool/../../../etc/shadow"')],
    ["CORRUPT_FILE", good.replace(file, '"path": "/etc/shadow"')],
    ["CORRUPT_FILE", good.replaceAll("web_1.0_amd64.deb", "../web")],
    ["CORRUPT_FILE", good.replace('"web_1.0_amd64.deb": {', '"elsewhere.deb": {')],
    ["NEWER_VERSION", good.replace('"version": 1,', '"version": 2,')],
  ] as const) {
    writeFileSync(machine.lockFile, bad);
    await assert.rejects(machine.realise(), { code });
  }
  assert.equal(
    machine.progress.filter((text) => text.startsWith("downloading")).length,
    1,
    "only busybox, for the lock itself",
  );
});
