import { parseInstanceName } from "../../core/names.ts";
import { execInInstance } from "../../instance/exec.ts";
import { UsageError } from "../errors.ts";
import { collect, flag, listOption, type Page, textOption } from "../page.ts";
import { useRawTerminal } from "../terminal.ts";

export const page: Page = {
  summary: "Run a command in an instance",
  description: "The command's exit code is passed on.",
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
  examples: ["mvmctl exec svc -- uname -a", "mvmctl exec -it svc -- sh"],
  json: false,
  async run(cli, [text = "", ...words], options) {
    const argv = words[0] === "--" ? words.slice(1) : words;
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

function splitVariable(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new UsageError(`--env '${text}' is not a variable`, "write --env NAME=value");
}
