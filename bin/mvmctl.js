#!/usr/bin/env node
// Plain JavaScript that every Node with ES modules can parse: it says which Node is needed before anything else is loaded.
import { existsSync, readFileSync } from "fs";
import { homedir } from "os";
import { join } from "path";
import { fileURLToPath } from "url";

const root = fileURLToPath(new URL("..", import.meta.url));
const needed = 24;

if (Number(process.versions.node.split(".")[0]) < needed) {
  process.stderr.write(
    `mvmctl needs Node.js ${needed} or newer, and this is ${process.versions.node}: in a clone run \`npm ci\` and then \`npx mvmctl\` (it brings its own Node), or install Node.js ${needed}\n`,
  );
  process.exit(1);
} else if (process.argv.length === 3 && (process.argv[2] === "--version" || process.argv[2] === "-V")) {
  process.stdout.write(`${JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version}\n`);
} else {
  const { enableCompileCache } = await import("module");
  // In the user's own directory: compiled code in a shared one could be somebody else's. Only once that is there: Node
  // never returns from making one where the file system makes none (/proc).
  const dataDir = process.env.MVM_DATA_DIR || join(process.env.HOME || homedir(), ".mvm");
  if (existsSync(dataDir)) enableCompileCache(join(dataDir, "cache", "node"));
  // A clone has the sources and runs them as they are; the published package has what was compiled from them.
  const source = join(root, "src", "cli", "main.ts");
  const { main } = await import(existsSync(source) ? source : join(root, "dist", "lib", "main.js"));
  process.exit(await main(process.argv.slice(2)));
}
