import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { parseTemplateName } from "../core/names.ts";
import { findProgram, run } from "../core/process.ts";
import { GUEST_LIBRARY } from "../nix/flake.ts";
import { initTemplate } from "./init.ts";
import { DEFAULT_PRESET, PACKAGE_SETS, PRESETS } from "./presets.ts";

const root = mkdtempSync(join(tmpdir(), "mvm-init-"));
after(() => rmSync(root, { recursive: true }));
const name = parseTemplateName("my-service");
const nix = findProgram("nix-instantiate", process.env);

/** Writes a scaffold into a new directory and returns the directory. */
function scaffold(preset: string, pkgs: "nixpkgs" | "host"): string {
  const directory = join(mkdtempSync(join(root, `${preset}-`)), "new", "directory");
  assert.deepEqual(initTemplate({ name, preset, pkgs, directory }), {
    files: ["flake.nix", ".gitignore", "README.md"],
  });
  return directory;
}

for (const preset of Object.keys(PRESETS)) {
  for (const pkgs of PACKAGE_SETS) {
    test(`the preset ${preset} with ${pkgs} is three files that say how to go on`, async (t) => {
      const directory = scaffold(preset, pkgs);
      assert.deepEqual(readdirSync(directory).sort(), [".gitignore", "README.md", "flake.nix"]);
      const flake = readFileSync(join(directory, "flake.nix"), "utf8");
      assert.match(flake, /name = "my-service";/);
      assert.ok(flake.includes(`inputs.mvm.url = "path:${GUEST_LIBRARY}";`));
      assert.equal(flake.includes("mvm.hostPkgs."), pkgs === "host");
      assert.equal(flake.includes("debianLock = ./debian.lock;"), pkgs === "host");
      assert.equal(flake.includes('inputs.nixpkgs.url = "github:NixOS/nixpkgs/'), pkgs === "nixpkgs");
      assert.doesNotMatch(flake, /\S[ \t]+$|\t|undefined|\[object/m);
      const readme = readFileSync(join(directory, "README.md"), "utf8");
      assert.match(readme, /^# my-service\n/);
      assert.match(readme, /mvmctl template build my-service --snapshot/);
      assert.match(readme, /mvmctl run --template my-service/);
      assert.doesNotMatch(readme, /undefined|\$\{/);
      const ignored = readFileSync(join(directory, ".gitignore"), "utf8");
      assert.doesNotMatch(ignored, /\.lock/, "the locks are to be committed");
      if (!nix) return t.skip("nix-instantiate is not installed");
      const parsed = await run(nix, ["--parse", join(directory, "flake.nix")]);
      assert.equal(parsed.exitCode, 0, parsed.stderr);
    });
  }
}

test("the default preset is one of them", () => {
  assert.ok(DEFAULT_PRESET in PRESETS);
});

test("an unknown preset is refused with the list of those that there are", () => {
  const directory = join(root, "unknown");
  for (const preset of ["mysql", "", "__proto__", "toString"]) {
    assert.throws(() => initTemplate({ name, preset, pkgs: "host", directory }), {
      code: "UNKNOWN_PRESET",
      hint: "choose one of: minimal, http, python, redis, postgres, worker",
    });
  }
  assert.ok(!readdirSync(root).includes("unknown"));
});

test("files that are there are listed and left alone, and nothing is written beside them", () => {
  const directory = mkdtempSync(join(root, "taken-"));
  writeFileSync(join(directory, "README.md"), "mine");
  symlinkSync("/nowhere", join(directory, ".gitignore"));
  assert.throws(() => initTemplate({ name, preset: "http", pkgs: "host", directory }), {
    code: "FILES_EXIST",
    message: `nothing was written, because these are there already: ${directory}/.gitignore, ${directory}/README.md`,
  });
  assert.deepEqual(readdirSync(directory).sort(), [".gitignore", "README.md"]);
  assert.equal(readFileSync(join(directory, "README.md"), "utf8"), "mine");
});

test("other files in the directory are no obstacle", () => {
  const directory = mkdtempSync(join(root, "project-"));
  writeFileSync(join(directory, "server.py"), "print()");
  initTemplate({ name, preset: "python", pkgs: "host", directory });
  assert.equal(readdirSync(directory).length, 4);
});

test("a directory that is a file is refused", () => {
  const directory = join(root, "file");
  writeFileSync(directory, "");
  assert.throws(() => initTemplate({ name, preset: "http", pkgs: "host", directory }), { code: "FILES_EXIST" });
  assert.throws(() => initTemplate({ name, preset: "http", pkgs: "host", directory: join(directory, "below") }), {
    code: "FILE_FAILED",
  });
});
