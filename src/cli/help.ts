import { COMMANDS, GROUPS } from "./commands.ts";
import { table } from "./table.ts";

/** Commands that are about no template and no instance. */
const OF_THE_MACHINE = new Set(["doctor", "setup", "status", "export", "completions"]);

/** `mvmctl --help`: the main job first, then all commands. */
export function overview(): string {
  const templates = COMMANDS.filter(({ path }) => path.startsWith("template "));
  const registry = COMMANDS.filter(({ path }) => path.startsWith("registry "));
  const others = COMMANDS.filter(({ path }) => !path.includes(" ") && !OF_THE_MACHINE.has(path));
  const machine = COMMANDS.filter(({ path }) => OF_THE_MACHINE.has(path));
  return `mvmctl builds microVM templates from Nix flakes, snapshots them healthy, and restores them in a fraction of a second.

  mvmctl template init my-service --local        write flake.nix, .gitignore, README.md
  mvmctl template build my-service --snapshot    build, boot, wait until healthy, snapshot
  mvmctl run --template my-service --name svc    restore the snapshot

Templates:
${list(templates)}
Registry:
${list(registry)}
Instances:
${list(others)}
This machine, and fleets of them:
${list(machine)}
\`mvmctl COMMAND --help\` shows a command's options, with examples. \`mvmctl --version\` shows the version.
`;
}

/** `mvmctl template --help`. */
export function groupHelp(group: string): string {
  return `${GROUPS[group]}.\n\n${list(COMMANDS.filter(({ path }) => path.startsWith(`${group} `)))}\n\`mvmctl ${group} COMMAND --help\` shows a command's options, with examples.\n`;
}

function list(entries: readonly { path: string; summary: string }[]): string {
  return table(entries.map(({ path, summary }) => [`  ${path}`, summary]));
}
