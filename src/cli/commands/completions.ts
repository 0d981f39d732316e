import type { CommandSummary } from "../cli.ts";
import { UsageError } from "../errors.ts";
import type { Page } from "../page.ts";

export const page: Page = {
  summary: "Print shell completions",
  define: (command) => command.argument("<shell>", "bash, zsh or fish"),
  examples: ["source <(mvmctl completions bash)", "mvmctl completions fish > ~/.config/fish/completions/mvmctl.fish"],
  json: false,
  async run(cli, [shell = ""]) {
    const { commands } = cli;
    const scripts: Record<string, () => string> = {
      bash: () => bashScript(commands),
      zsh: () => `autoload -U bashcompinit && bashcompinit\n${bashScript(commands)}`,
      fish: () => fishScript(commands),
    };
    const script = scripts[shell];
    if (!script) throw new UsageError(`completions for '${shell}' are not known`, "choose bash, zsh or fish");
    cli.stdout.write(script());
  },
};

const firstWords = (commands: readonly CommandSummary[]) => [
  ...new Set(commands.map(({ path }) => path.split(" ")[0]!)),
];
const secondWords = (commands: readonly CommandSummary[]) =>
  commands.filter(({ path }) => path.startsWith("template ")).map(({ path }) => path.split(" ")[1]!);

function bashScript(commands: readonly CommandSummary[]): string {
  return `_mvmctl() {
  local current="\${COMP_WORDS[COMP_CWORD]}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${firstWords(commands).join(" ")}" -- "$current"))
  elif [ "$COMP_CWORD" -eq 2 ] && [ "\${COMP_WORDS[1]}" = template ]; then
    COMPREPLY=($(compgen -W "${secondWords(commands).join(" ")}" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}
complete -F _mvmctl mvmctl
`;
}

function fishScript(commands: readonly CommandSummary[]): string {
  const first = commands
    .filter(({ path }) => !path.includes(" "))
    .map(({ path, summary }) => line("__fish_use_subcommand", path, summary));
  const second = commands
    .filter(({ path }) => path.startsWith("template "))
    .map(({ path, summary }) => line("__fish_seen_subcommand_from template", path.split(" ")[1]!, summary));
  return [...first, line("__fish_use_subcommand", "template", "Build, list and change templates"), ...second].join("");
}

function line(condition: string, word: string, summary: string): string {
  return `complete -c mvmctl -f -n '${condition}' -a ${word} -d '${summary.replaceAll("'", "\\'")}'\n`;
}
