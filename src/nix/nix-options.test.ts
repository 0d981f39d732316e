import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { useDataDirectory } from "../../test/support/data-directory.ts";
import { configPath, type NixSettings, readConfig } from "../core/config.ts";
import { ensureDirectory } from "../core/files.ts";
import { globalOptions } from "./nix.ts";

describe("what Nix is told beside its own configuration", () => {
  const options = (settings: NixSettings, offline = false) => {
    const args = globalOptions({ env: {}, settings, offline });
    return (name: string) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined);
  };

  test("nothing, where nothing was configured", () => {
    const of = options({});
    for (const name of ["builders", "substituters", "extra-substituters", "extra-trusted-public-keys"])
      assert.equal(of(name), undefined);
  });

  test("builders as Nix separates them; caches and their keys beside the usual ones", () => {
    const of = options({
      builders: ["ssh://a x86_64-linux", "@/m"],
      substituters: ["https://c"],
      trustedPublicKeys: ["c-1:k"],
    });
    assert.equal(of("builders"), "ssh://a x86_64-linux ; @/m");
    assert.equal(of("extra-substituters"), "https://c");
    assert.equal(of("extra-trusted-public-keys"), "c-1:k");
  });

  test("what needs no public cache is still looked for in a configured one", () => {
    assert.equal(options({}, true)("substituters"), "");
    assert.equal(options({ substituters: ["https://c"] }, true)("substituters"), "https://c");
  });

  test("a configuration that Nix would misread is refused with the key's name", () => {
    using data = useDataDirectory();
    ensureDirectory(data.paths.dataDir);
    for (const [nix, said] of [
      [{ builder: [] }, /builder/],
      [{ builders: "ssh://a" }, /nix\.builders/],
      [{ builders: ["a ; b"] }, /nix\.builders\.0: one line without ';'/],
      [{ substituters: ["https://a https://b"] }, /nix\.substituters\.0: no spaces/],
      [{ store: "--help" }, /nix\.store/],
    ] as const) {
      writeFileSync(configPath(data.paths), JSON.stringify({ version: 1, nix }));
      assert.throws(() => readConfig(data.paths), said);
    }
  });
});
