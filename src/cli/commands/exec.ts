import type { Command } from "commander";
import { parseInstanceName } from "../../core/names.ts";
import { execInInstance } from "../../instance/exec.ts";
import { UsageError } from "../errors.ts";
import { collect, flag, listOption, type Page, textOption } from "../page.ts";
import { useRawTerminal } from "../terminal.ts";

export const page: Page = {
  summary: "Run a command in an instance",
  description:
    "The command's exit code is passed on. It is 127 if the guest has no such command, and 126 if it can't be started.",
  define: (command) =>
    command
      .argument("<name>")
      .argument("<command...>", "after `--`")
      .option("-i, --interactive", "pass standard input on")
      .option("-t, --tty", "give the command a terminal")
      .option("-u, --user <user>", "run as this user of the guest (default root)")
      .option("-w, --workdir <path>", "run in this directory of the guest")
      .option("-e, --env <key=value>", "an environment variable; may be repeated", collect)
      .passThroughOptions(),
  arrange,
  examples: ["mvmctl exec svc -- uname -a", "mvmctl exec -it svc -- sh"],
  json: false,
  async run(cli, [text = "", ...argv], options) {
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

/**
 * Options may also stand between the instance's name and the command, as in `exec svc -it -- sh`. From `--` or the first
 * word that is none, every word is the guest's, even one that looks like an option.
 */
function arrange(words: readonly string[], newCommand: () => Command): string[] {
  const [before, [name, ...after]] = splitOptions(words, newCommand());
  if (name === undefined || before.at(-1) === "--") return [...words];
  const [between, command] = splitOptions(after, newCommand());
  if (between.at(-1) === "--") between.pop();
  return [...before, ...between, "--", name, ...command];
}

/** The options that words begin with, up to `--` and with it, and what follows them: nothing behind an option that there is not. */
function splitOptions(words: readonly string[], command: Command): [options: string[], rest: string[]] {
  const { operands, unknown } = command.parseOptions([...words]);
  const end = unknown.length > 0 ? words.length : words.length - operands.length;
  return [words.slice(0, end), words.slice(end)];
}

function splitVariable(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new UsageError(`--env '${text}' is not a variable`, "write --env NAME=value");
}
