/** Writes docs/cli.md from the commands; with --check, says whether it is current. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { COMMANDS } from "../src/cli/commands.ts";
import { commandOf } from "../src/cli/main.ts";

const FILE = join(import.meta.dirname, "..", "docs", "cli.md");

async function render(): Promise<string> {
  const parts = ["# Commands\n\nMade from the commands themselves: `npm run docs`.\n"];
  for (const { path, load } of COMMANDS) {
    const command = commandOf(path, (await load()).page);
    let help = "";
    command.configureOutput({ writeOut: (text) => (help += text) }).configureHelp({ helpWidth: 110 });
    command.outputHelp();
    parts.push(`## mvmctl ${path}\n\n\`\`\`\n${help.trim()}\n\`\`\`\n`);
  }
  return parts.join("\n");
}

const text = await render();
if (!process.argv.includes("--check")) writeFileSync(FILE, text);
else if (readFileSync(FILE, "utf8") !== text) {
  process.stderr.write("docs/cli.md is not what the commands say: npm run docs\n");
  process.exitCode = 1;
}
