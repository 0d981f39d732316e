import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { run } from "../core/process.ts";
import { buildPackage, choosePackage, flakeMetadata, GUEST_LIBRARY, libraryOverride, openFlake } from "./flake.ts";
import { nixSystem } from "./nix.ts";

const root = mkdtempSync(join(tmpdir(), "mvm-flake-"));
after(() => rmSync(root, { recursive: true }));

function useFlake(): string {
  const directory = mkdtempSync(join(root, "flake-"));
  writeFileSync(join(directory, "flake.nix"), "{ }");
  return directory;
}

/** A `nix` that prints this, and writes how it was called to `calls`. */
function fakeNix(answer: unknown): { env: NodeJS.ProcessEnv; calls: () => Promise<string> } {
  const directory = mkdtempSync(join(root, "bin-"));
  writeFileSync(join(directory, "answer"), JSON.stringify(answer));
  writeFileSync(
    join(directory, "nix"),
    `#!/bin/sh\nprintf '%s\\n' "$@" >> "${directory}/calls"\ncat "${directory}/answer"\n`,
  );
  chmodSync(join(directory, "nix"), 0o755);
  return {
    env: { ...process.env, PATH: `${directory}:${process.env["PATH"]}` },
    calls: async () => (await run("cat", [join(directory, "calls")])).stdout,
  };
}

const flake = { reference: "path:/flakes/web", directory: "/flakes/web", inGit: false };

test("a directory that Git does not know is taken as it is", async () => {
  const directory = useFlake();
  assert.deepEqual(await openFlake(directory), { reference: `path:${directory}`, directory, inGit: false });
});

test("in a repository that knows its flake.nix, Nix sees what Git sees", async () => {
  const directory = useFlake();
  await run("git", ["init", "-q"], { cwd: directory });
  assert.equal((await openFlake(directory)).inGit, false, "a fresh scaffold in a repository is not known yet");
  await run("git", ["add", "flake.nix"], { cwd: directory });
  assert.deepEqual(await openFlake(directory), { reference: directory, directory, inGit: true });
});

test("a remote flake is Nix's business", async () => {
  assert.deepEqual(await openFlake("github:owner/repository"), {
    reference: "github:owner/repository",
    directory: undefined,
    inGit: false,
  });
});

test("a flake that is gone is named, with how to point the template elsewhere", async () => {
  const empty = mkdtempSync(join(root, "empty-"));
  await assert.rejects(openFlake(empty), {
    code: "FLAKE_NOT_FOUND",
    message: new RegExp(`${empty} has no flake.nix`),
    hint: /template edit/,
  });
  await assert.rejects(openFlake(join(empty, "gone")), { code: "FLAKE_NOT_FOUND", message: /gone does not exist/ });
});

test("a flake that uses the guest library gets the one of this mvmctl", async () => {
  const metadata = (inputs: object) => ({
    url: "path:/flakes/web?narHash=abc",
    path: "/nix/store/source",
    resolved: { type: "path" },
    locks: { root: "top", nodes: { top: { inputs }, mvm: {} } },
  });
  const { env } = fakeNix(metadata({ mvm: "mvm", nixpkgs: ["mvm", "nixpkgs"] }));
  const found = await flakeMetadata(flake, { env });
  assert.deepEqual(found, {
    lockedUrl: "path:/flakes/web?narHash=abc",
    directory: "/flakes/web",
    inputs: ["mvm", "nixpkgs"],
  });
  assert.deepEqual(libraryOverride(found), ["--override-input", "mvm", `path:${GUEST_LIBRARY}`]);
  const other = await flakeMetadata({ ...flake, directory: undefined }, fakeNix(metadata({ nixpkgs: "nixpkgs" })));
  assert.deepEqual(libraryOverride(other), []);
  assert.equal(other.directory, "/nix/store/source");
});

test("the package that Nix chose is taken, with what it asks of Debian", async () => {
  const wish = { role: "gateway", profile: "default" };
  const { env, calls } = fakeNix({ names: ["default", "gateway"], chosen: "gateway", debianRequest: null });
  assert.deepEqual(await choosePackage(flake, wish, ["--override-input", "mvm", "path:/lib"], { env }), {
    name: "gateway",
    debianRequest: undefined,
  });
  assert.match(await calls(), /packages \? "gateway" then "gateway" else if packages \? "default"/);
  assert.match(await calls(), /--override-input\nmvm\npath:\/lib\n/);
});

test("where there is no such package, those that there are are named", async () => {
  const wish = { role: "gateway", profile: "api" };
  await assert.rejects(
    choosePackage(flake, wish, [], fakeNix({ names: ["web", "worker"], chosen: null, debianRequest: null })),
    {
      code: "PACKAGE_NOT_FOUND",
      message: "the flake has no package 'api' (nor 'gateway', the role): it has web, worker",
      hint: /template edit NAME --profile/,
    },
  );
  await assert.rejects(choosePackage(flake, wish, [], fakeNix({ names: [], chosen: null, debianRequest: null })), {
    message: new RegExp(`it has no packages for ${nixSystem()}`),
  });
});

test("building gives the store path of the package's output", async () => {
  const { env, calls } = fakeNix([{ drvPath: "/nix/store/x.drv", outputs: { out: "/nix/store/x-image" } }]);
  assert.equal(await buildPackage(flake, "web", [], { env }), "/nix/store/x-image");
  assert.match(await calls(), new RegExp(`path:/flakes/web#packages\\.${nixSystem()}\\.web\n`));
});

test("without Nix, the error says how to get it", async () => {
  const env = { PATH: join(root, "no-programs") };
  mkdirSync(env.PATH);
  await assert.rejects(flakeMetadata(flake, { env }), { code: "NIX_MISSING", hint: /apt-get install nix-bin/ });
});
