/**
 * Compiles what is published into dist/: one bundle that starts fast, in pieces that commands load when they need them, and
 * the library's type declarations. dist/lib/ is two levels below the root, as src/nix/ is: both find nix/ the same way.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { run } from "../src/core/process.ts";

const root = join(import.meta.dirname, "..");
const out = join(root, "dist");
rmSync(out, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: { main: "src/cli/main.ts", index: "src/index.ts" },
  outdir: join(out, "lib"),
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  // Large, and needed only by who keeps credentials where AWS's tools do.
  external: ["@aws-sdk/credential-provider-node"],
  target: "node24",
  // CommonJS dependencies ask for Node's own modules with require().
  banner: {
    // Made when it is called: each of many files begins with it.
    js: 'import { createRequire as __createRequire } from "node:module"; const require = (id) => __createRequire(import.meta.url)(id);',
  },
  legalComments: "inline",
});
const types = await run("tsc", ["-p", "tsconfig.build.json"], { cwd: root });
if (types.exitCode !== 0) {
  process.stderr.write(types.stdout);
  process.exitCode = 1;
}
