import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { NixSettings } from "../../src/core/config.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { type SecondHost, useSecondHost } from "../support/second-host.ts";

describe("building on a second host", () => {
  let mvm: Mvmctl;
  let flake: string;
  let host: SecondHost | { readonly missing: string };
  before(async () => {
    mvm = useMvmctl();
    flake = mkdtempSync(join(tmpdir(), "mvm-flake-"));
    cpSync(join(REPOSITORY, "examples", "hello"), flake, { recursive: true });
    rmSync(join(flake, "flake.lock"));
    const text = readFileSync(join(flake, "flake.nix"), "utf8");
    writeFileSync(join(flake, "flake.nix"), text.replace("path:../../nix", `path:${REPOSITORY}/nix`));
    await mvm.ok(["template", "create", "hello", "--flake", flake]);
    host = await useSecondHost();
  });
  after(async () => {
    if (!("missing" in host)) await host[Symbol.asyncDispose]();
    mvm[Symbol.dispose]();
    rmSync(flake, { recursive: true, force: true });
  });

  /** Builds what no store has yet, and returns what was said and where the result is in this machine's store. */
  async function build(...more: string[]): Promise<{ said: string; storePath: string }> {
    writeFileSync(join(flake, "index.html"), `<p>${randomUUID()}</p>\n`);
    const result = await mvm.run(["template", "build", "hello", ...more]);
    assert.equal(result.exitCode, 0, result.stderr);
    const { current } = await mvm.json<{ current: string }>(["template", "info", "hello"]);
    const record = join(mvm.dataDir, "templates", "hello", "revisions", current, "build.json");
    return { said: result.stderr, storePath: JSON.parse(readFileSync(record, "utf8")).storePath };
  }
  const configure = (nix: NixSettings) =>
    writeFileSync(join(mvm.dataDir, "config.json"), JSON.stringify({ version: 1, nix }));

  test("--builders names a machine that builds, and the image comes back", async (t) => {
    if ("missing" in host) return t.skip(host.missing);
    const builder = `${host.url} x86_64-linux ${host.key} 1 1 - - ${host.hostKey}`;
    const { said, storePath } = await build("--builders", builder);
    assert.match(said, /building \S+ on ssh-ng:\/\/root@198\.18\.77\.2/);
    assert.ok(host.storePaths().includes(basename(storePath)), "it was built there");
    assert.ok(existsSync(storePath), "and copied here");
  });

  test("config.json says it for every build", async (t) => {
    if ("missing" in host) return t.skip(host.missing);
    configure({ builders: [`${host.url} x86_64-linux ${host.key} 1 1 - - ${host.hostKey}`] });
    const { said, storePath } = await build();
    assert.match(said, /building \S+ on ssh-ng:/);
    assert.ok(host.storePaths().includes(basename(storePath)));
  });

  test("a remote store builds what was evaluated here, and the image is copied from it", async (t) => {
    if ("missing" in host) return t.skip(host.missing);
    const query = new URLSearchParams({ "ssh-key": host.key, "base64-ssh-public-host-key": host.hostKey });
    configure({ store: `${host.url}?${query}` });
    const { storePath } = await build();
    assert.ok(host.storePaths().includes(basename(storePath)), "it was built there");
    assert.ok(existsSync(storePath), "and copied here");
  });

  test("a builder that can't be reached is said, and the image is built here", async (t) => {
    if ("missing" in host) return t.skip(host.missing);
    configure({});
    const { said, storePath } = await build("--builders", `${host.url} x86_64-linux /dev/null 1 1 - - ${host.hostKey}`);
    assert.match(said, /cannot build on 'ssh-ng:\/\/root@198\.18\.77\.2'/);
    assert.ok(!host.storePaths().includes(basename(storePath)) && existsSync(storePath));
  });

  test("a store that can't be reached is an error that says what to try", async (t) => {
    if ("missing" in host) return t.skip(host.missing);
    configure({ store: "ssh-ng://root@198.18.77.2?ssh-key=/dev/null" });
    writeFileSync(join(flake, "index.html"), `<p>${randomUUID()}</p>\n`);
    assert.match(await mvm.fails(["template", "build", "hello"], "NIX_FAILED"), /ssh HOST nix-store --version/);
  });
});
