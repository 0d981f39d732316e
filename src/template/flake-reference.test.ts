import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { useDataDirectory } from "../../test/support/data-directory.ts";
import { absoluteFlake } from "./flake-reference.ts";

const data = useDataDirectory();
after(() => data[Symbol.dispose]());
const home = data.root;
const service = data.flake("src/service");
const sources = join(data.root, "src");

test("a local flake becomes an absolute path, however it was written", () => {
  const written: [string, string][] = [
    [".", service],
    ["./", service],
    ["../service", service],
    ["path:.", service],
    ["path:../service/", service],
    [service, service],
    [`path:${service}`, service],
  ];
  for (const [text, expected] of written) assert.equal(absoluteFlake(text, service, home), expected, text);
  assert.equal(absoluteFlake("service", sources, home), service);
  assert.equal(absoluteFlake("~/src/service", "/", home), service);
});

test("a remote flake is kept as it was typed: Nix knows what it means", () => {
  for (const text of [
    "github:owner/repository",
    "github:owner/repository/v1?dir=guest",
    "git+https://example.org/repository",
    "git+ssh://git@example.org/repository",
    "https://example.org/flake.tar.gz",
    "flake:nixpkgs",
  ]) {
    assert.equal(absoluteFlake(text, service, home), text);
  }
});

test("a package behind a '#' is refused: that is what the profile is for", () => {
  assert.throws(() => absoluteFlake(".#api", service, home), {
    code: "INVALID_FLAKE",
    hint: /--flake \. --profile api/,
  });
  assert.throws(() => absoluteFlake("github:o/r#api", service, home), { hint: /--flake github:o\/r --profile api/ });
  assert.throws(() => absoluteFlake("#", service, home), { hint: /--flake \. --profile default/ });
});

test("what can be no reference is refused", () => {
  assert.throws(() => absoluteFlake("", service, home), { code: "INVALID_FLAKE", message: /is empty/ });
  assert.throws(() => absoluteFlake("a\nb", service, home), { code: "INVALID_FLAKE", message: /control characters/ });
});

test("a path that Nix could not be told is refused", () => {
  const odd = data.flake("what?");
  assert.throws(() => absoluteFlake(".", odd, home), { code: "INVALID_FLAKE", message: /has a '\?'/ });
});

test("a local flake has to be there: the error says which path, and what is wrong with it", () => {
  mkdirSync(join(data.root, "empty"));
  writeFileSync(join(data.root, "file"), "");
  const missing: [string, RegExp][] = [
    ["./nowhere", /nowhere does not exist/],
    ["./empty", /empty has no flake\.nix/],
    ["./file", /file is no directory/],
    ["nixpkgs", /nixpkgs does not exist/],
  ];
  for (const [text, message] of missing) {
    assert.throws(
      () => absoluteFlake(text, data.root, home),
      { code: "FLAKE_NOT_FOUND", message, hint: /mvmctl template init/ },
      text,
    );
  }
  assert.throws(() => absoluteFlake("./flake.nix", service, home), {
    code: "FLAKE_NOT_FOUND",
    hint: `write --flake ${service}`,
  });
});
