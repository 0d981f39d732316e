import assert from "node:assert/strict";
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { run } from "../core/process.ts";
import { fingerprintFlake } from "./fingerprint.ts";
import { openFlake } from "./flake.ts";

const root = mkdtempSync(join(tmpdir(), "mvm-fingerprint-"));
after(() => rmSync(root, { recursive: true }));

function useFlake(): string {
  const directory = mkdtempSync(join(root, "flake-"));
  writeFileSync(join(directory, "flake.nix"), "{ }");
  mkdirSync(join(directory, "www"));
  writeFileSync(join(directory, "www", "index.html"), "hello");
  return directory;
}

async function git(directory: string, ...args: string[]): Promise<void> {
  const identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"];
  const result = await run("git", [...identity, ...args], { cwd: directory });
  assert.equal(result.exitCode, 0, result.stderr);
}

const fingerprint = async (directory: string, settings: unknown = {}) =>
  fingerprintFlake(await openFlake(directory), settings);

/** Each change in turn has to give a fingerprint that was never there before. */
async function allDiffer(directory: string, changes: [string, () => unknown][]): Promise<void> {
  const seen = new Set([await fingerprint(directory)]);
  for (const [what, change] of changes) {
    await change();
    const now = await fingerprint(directory);
    assert.ok(!seen.has(now), what);
    seen.add(now);
  }
}

test("the same flake with the same settings has the same fingerprint", async () => {
  const directory = useFlake();
  assert.equal(await fingerprint(directory, { cpus: 2 }), await fingerprint(directory, { cpus: 2 }));
  assert.notEqual(await fingerprint(directory, { cpus: 2 }), await fingerprint(directory, { cpus: 4 }));
});

test("every change that Nix could see changes it", async () => {
  const directory = useFlake();
  const page = join(directory, "www", "index.html");
  await allDiffer(directory, [
    [
      "a file grew",
      () => {
        appendFileSync(page, "!");
        utimesSync(page, 1, 1);
      },
    ],
    [
      "a file of the same size and time was put in its place",
      () => {
        const other = join(root, "other");
        writeFileSync(other, "HELLO!");
        utimesSync(other, 1, 1);
        renameSync(other, page);
      },
    ],
    ["a file became executable", () => chmodSync(page, 0o755)],
    ["a file was added", () => writeFileSync(join(directory, "flake.lock"), "{}")],
    ["a link was added", () => symlinkSync("index.html", join(directory, "www", "default.html"))],
    ["a file was renamed", () => renameSync(page, join(directory, "www", "home.html"))],
    ["a file was removed", () => rmSync(join(directory, "www", "home.html"))],
    ["a directory was added", () => mkdirSync(join(directory, "empty"))],
  ]);
});

test("what Nix and Git make for themselves changes nothing", async () => {
  const directory = useFlake();
  const before = await fingerprint(directory);
  symlinkSync("/nix/store/something", join(directory, "result"));
  mkdirSync(join(directory, ".direnv"));
  utimesSync(directory, 1, 1);
  assert.equal(await fingerprint(directory), before);
});

test("a directory that flake.lock takes as an input counts too", async () => {
  const directory = useFlake();
  const library = join(root, "library");
  mkdirSync(library);
  const lock = {
    nodes: {
      root: {},
      library: { original: { type: "path", path: library } },
      remote: { original: { type: "github" } },
    },
  };
  writeFileSync(join(directory, "flake.lock"), JSON.stringify(lock));
  await allDiffer(directory, [
    ["the input changed", () => writeFileSync(join(library, "flake.nix"), "{ }")],
    ["the input vanished", () => rmSync(library, { recursive: true })],
  ]);
});

test("in a Git repository what counts is what Git knows, wherever in it the flake lies", async () => {
  const repository = mkdtempSync(join(root, "repository-"));
  const directory = join(repository, "guest");
  mkdirSync(directory);
  writeFileSync(join(directory, "flake.nix"), "{ }");
  writeFileSync(join(repository, "shared.nix"), "{ }");
  await git(repository, "init", "-q");
  await git(repository, "add", ".");
  const added = await fingerprint(directory);
  await git(repository, "commit", "-qm", "first");
  const committed = await fingerprint(directory);
  assert.notEqual(added, committed);
  writeFileSync(join(repository, "untracked"), "");
  assert.equal(await fingerprint(directory), committed, "Nix does not see what Git does not know");
  await allDiffer(directory, [
    ["a tracked file changed", () => appendFileSync(join(repository, "shared.nix"), "# changed\n")],
    ["it changed once more", () => appendFileSync(join(repository, "shared.nix"), "# again\n")],
    ["the change was staged", () => git(repository, "add", "shared.nix")],
    ["it was committed", () => git(repository, "commit", "-qm", "second")],
    ["a file was added to the index", () => git(repository, "add", "untracked")],
    ["a tracked file was removed", () => rmSync(join(repository, "shared.nix"))],
  ]);
});
