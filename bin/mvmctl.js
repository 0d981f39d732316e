#!/usr/bin/env node
// Plain JavaScript that every Node with ES modules can parse: it says which Node is needed before anything else is loaded. It has no
// imports: for one of "fs", Node loads all that belongs to it, which takes as long as all of mvmctl.
const needed = 24;
/** Their commands have two words, and little in common. */
const COMMAND_GROUPS = ["template", "registry", "export"];

if (Number(process.versions.node.split(".")[0]) < needed) {
  process.stderr.write(
    `mvmctl needs Node.js ${needed} or newer, and this is ${process.versions.node}: in a clone run \`npm ci\` and then \`npx mvmctl\` (it brings its own Node), or install Node.js ${needed}\n`,
  );
  process.exit(1);
}

const { existsSync, mkdirSync, readFileSync } = process.getBuiltinModule("fs");
const { join } = process.getBuiltinModule("path");
const root = join(import.meta.dirname, "..");
const args = process.argv.slice(2);

if (args.length === 1 && (args[0] === "--version" || args[0] === "-V")) {
  process.stdout.write(`${JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version}\n`);
} else {
  const { main, keep } = await loadMain();
  const code = await main(args);
  if (code === 0) keep();
  process.exit(code);
}

/** A clone has the sources and runs them as they are; the published package has what was compiled from them, some commands by themselves. */
async function loadMain() {
  const home = () => process.env.HOME || process.getBuiltinModule("os").homedir();
  const dataDir = process.env.MVM_DATA_DIR || join(home(), ".mvm");
  const cache = cacheIn(dataDir);
  const source = join(root, "src", "cli", "main.ts");
  if (existsSync(source)) {
    if (cache) process.getBuiltinModule("module").enableCompileCache(cache);
    return { main: (await import(source)).main, keep: () => {} };
  }
  const { load } = await import("./load.js");
  const command = args.slice(0, COMMAND_GROUPS.includes(args[0]) ? 2 : 1).join("-");
  const purpose = /^[a-z]+(-[a-z-]+)?$/.test(command) ? command : "any";
  const [own, all] = [purpose, "main"].map((name) => join(root, "dist", "lib", `${name}.cjs`));
  const compiled = load(existsSync(own) ? own : all, cache, purpose);
  return { main: compiled.exports.main, keep: compiled.keep };
}

/** Only once the data directory is there, and takes one: Node never returns from making several at once where the file system makes none (/proc). */
function cacheIn(dataDir) {
  const directory = join(dataDir, "cache");
  try {
    if (!existsSync(directory)) mkdirSync(directory);
    return join(directory, "node");
  } catch {
    return undefined;
  }
}
