import { Command } from "commander";
import { parseInstanceName } from "../../core/names.ts";
import { execInInstance } from "../../instance/exec.ts";
import { UsageError } from "../errors.ts";
import { collect, flag, listOption, type Options, type Page, textOption } from "../page.ts";
import { useRawTerminal } from "../terminal.ts";

export const page: Page = {
  summary: "Run a command in an instance",
  description: "The command's exit code is passed on.",
  define: (command) => void defineCommand(command.argument("<name>")),
  examples: ["mvmctl exec svc -- uname -a", "mvmctl exec -it svc -- sh"],
  json: false,
  async run(cli, [text = "", ...words], before) {
    const { argv, options } = splitCommand(words, before);
    const name = parseInstanceName(text);
    const interactive = flag(options, "interactive");
    const wantsTty = flag(options, "tty");
    if (wantsTty && !cli.stdin.isTTY)
      throw new UsageError("-t needs a terminal, and standard input is none", "leave out -t");
    const user = textOption(options, "user");
    const cwd = textOption(options, "workdir");
    const terminal = wantsTty ? useRawTerminal(cli.stdin, cli.stdout) : undefined;
    try {
      return await execInInstance(
        cli,
        name,
        {
          argv,
          env: Object.fromEntries(listOption(options, "env").map(splitVariable)),
          ...(user === undefined ? {} : { user }),
          ...(cwd === undefined ? {} : { cwd }),
          ...(terminal ? { tty: { ...terminal.size(), term: cli.env["TERM"] || "xterm" } } : {}),
        },
        {
          stdout: cli.stdout,
          stderr: cli.stderr,
          ...(interactive || terminal ? { stdin: cli.stdin } : {}),
          ...(terminal ? { onResize: terminal.onResize } : {}),
        },
      );
    } finally {
      terminal?.restore();
    }
  },
};

/** The command and its options, of which those before the name are `define`'s, and those after it `splitCommand`'s. */
function defineCommand(command: Command): Command {
  return command
    .argument("<command...>", "after `--`")
    .option("-i, --interactive", "pass standard input on")
    .option("-t, --tty", "give the command a terminal")
    .option("-u, --user <user>", "run as this user of the guest (default root)")
    .option("-w, --workdir <path>", "run in this directory of the guest")
    .option("-e, --env <key=value>", "an environment variable; may be repeated", collect)
    .passThroughOptions();
}

/**
 * What follows the instance's name: options, as in `exec svc -it -- sh`, up to `--` or the first word that is none. From
 * there on every word is the guest's, even one that looks like an option. Exported for its test.
 * @param before the options before the name
 */
export function splitCommand(words: readonly string[], before: Options): { argv: string[]; options: Options } {
  if (words[0] === "--") return { argv: words.slice(1), options: before };
  if (!words[0]?.startsWith("-")) return { argv: [...words], options: before };
  // Commander read no option after the name, for the guest's sake: this is a command line of its own.
  const command = defineCommand(new Command("mvmctl exec"))
    .usage("[options] <name> <command...>")
    .helpOption("-h, --help", "show this help")
    .option("--json", "print errors as JSON")
    .option("--debug", "show stack traces of errors")
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .action(() => {})
    .parse([...words], { from: "user" });
  const after = command.opts<Options>();
  const env = [...listOption(before, "env"), ...listOption(after, "env")];
  return { argv: command.args, options: { ...before, ...after, env } };
}

function splitVariable(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new UsageError(`--env '${text}' is not a variable`, "write --env NAME=value");
}
