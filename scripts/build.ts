/**
 * Compiles what is published into dist/: the command, the library, and the library's type declarations. dist/lib/ is two
 * levels below the root, as src/nix/ is: both find nix/ the same way.
 */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type BuildOptions, build, type Plugin } from "esbuild";
import { run } from "../src/core/process.ts";

const root = join(import.meta.dirname, "..");
const out = join(root, "dist");
rmSync(out, { recursive: true, force: true });
const common = {
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  target: "node24",
  // Large, and needed only by who keeps credentials where AWS's tools do.
  external: ["@aws-sdk/credential-provider-node"],
  legalComments: "linked",
} satisfies BuildOptions;

/** Node begins with these. */
const EARLY_BUILTINS = ["node:fs", "node:path", "node:url", "node:events"];

/** Has Node load its other modules when something of theirs is first used: some take 10 ms. */
const lateBuiltins: Plugin = {
  name: "late-builtins",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path, namespace }) =>
      namespace === "file" && !EARLY_BUILTINS.includes(path) ? { path, namespace: "late" } : undefined,
    );
    onLoad({ filter: /.*/, namespace: "late" }, ({ path }) => ({
      // esbuild copies what an exported object has itself, and keeps its prototype.
      contents: `let loaded;
        const get = (_, name) => (loaded ??= require(${JSON.stringify(path)}))[name];
        module.exports = Object.create(new Proxy({}, { get }));`,
    }));
  },
};

/** Leaves out the pages of all commands but one: the launcher has the file run no other. */
const pageOf = (command: string): Plugin => ({
  name: "one-page",
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/commands\// }, ({ path, kind }) =>
      kind === "dynamic-import" && path !== `./commands/${command}.ts`
        ? { path: "./main.cjs", external: true }
        : undefined,
    );
  },
});

/**
 * The command is one file of CommonJS: a file costs Node a millisecond to load, and the imports of an ES module are all
 * loaded before anything runs.
 */
async function buildCommand(name: string, plugins: Plugin[]): Promise<void> {
  const outfile = join(out, "lib", `${name}.cjs`);
  await build({
    ...common,
    entryPoints: ["src/cli/main.ts"],
    outfile,
    format: "cjs",
    plugins: [lateBuiltins, ...plugins],
    define: { "import.meta.url": "__url", "import.meta.dirname": "__dirname" },
    banner: { js: '"use strict"; const __url = require("node:url").pathToFileURL(__filename).href;' },
  });
  // It is read as Latin-1: V8 keeps two bytes for each character of a text that has one beyond.
  if (/[^\0-\x7f]/.test(readFileSync(outfile, "utf8"))) throw new Error(`${outfile} has characters beyond ASCII`);
}

/** What is started by the dozen has a file of its own, which bin/mvmctl.js prefers: it is loaded 2 ms sooner. */
const QUICK_COMMANDS = ["run", "exec"];
await buildCommand("main", []);
for (const command of QUICK_COMMANDS) await buildCommand(command, [pageOf(command)]);
await build({
  ...common,
  entryPoints: { index: "src/index.ts" },
  outdir: join(out, "lib"),
  splitting: true,
  format: "esm",
  // CommonJS dependencies ask for Node's own modules with require().
  banner: {
    // Made when it is called: each of many files begins with it.
    js: 'import { createRequire as __createRequire } from "node:module"; const require = (id) => __createRequire(import.meta.url)(id);',
  },
});
const types = await run("tsc", ["-p", "tsconfig.build.json"], { cwd: root });
if (types.exitCode !== 0) {
  process.stderr.write(types.stdout);
  process.exitCode = 1;
}
