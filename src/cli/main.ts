import { Command, CommanderError } from "commander";
import type { Context } from "../core/context.ts";
import { isErrno } from "../core/errors.ts";
import { nearest } from "../core/nearest.ts";
import { resolvePaths } from "../core/paths.ts";
import { runsInLima } from "../host/lima.ts";
import { type Cli, styleFor } from "./cli.ts";
import { COMMANDS, type Entry, GROUPS } from "./commands.ts";
import { Cancelled, errorJson, exitCodeOf, OutputClosed, renderError, UsageError } from "./errors.ts";
import { groupHelp, overview } from "./help.ts";
import type { Options, Page } from "./page.ts";
import { progressView } from "./progress.ts";

const STOPPING_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Runs one command line and returns its exit code: 0, 1 (it failed), 2 (wrong usage), 128 + a signal's number (stopped). */
export async function main(argv: readonly string[]): Promise<number> {
  const { stdout, stderr, env } = process;
  const own = beforeDashes(argv);
  const debug = own.includes("--debug");
  const json = own.includes("--json");
  const style = styleFor(stderr, env);
  const progress = progressView(stderr, style);
  const abort = new AbortController();
  const stopListening = cancelOnSignals(abort);
  cancelOnClosedOutput(abort, stdout, stderr);
  const context: Context = {
    paths: resolvePaths(env),
    env,
    signal: abort.signal,
    report: json && !stderr.isTTY ? () => {} : (event) => progress.report(event),
  };
  let inOrder = false;
  const cli: Cli = {
    ...context,
    cwd: process.cwd(),
    // Node loads ten modules for it, and few commands read it.
    get stdin() {
      return process.stdin;
    },
    stdout,
    stderr,
    json,
    print: (data, text) => {
      progress.settle(true);
      stdout.write(json ? `${JSON.stringify(data, null, 2)}\n` : text());
    },
    settle: () => progress.settle(true),
    endsInOrder: () => {
      inOrder = true;
    },
    style: styleFor(stdout, env),
    commands: COMMANDS,
  };
  try {
    const code = runsInLima(argv, env)
      ? await (await import("../host/lima/relay.ts")).relayToLima(cli, argv)
      : await dispatch(cli, argv);
    progress.settle(true);
    // Some commands run until they are stopped, and end as they should then.
    return abort.signal.aborted && !inOrder ? exitCodeOf(abort.signal.reason) : code;
  } catch (thrown) {
    progress.settle(false);
    const error = abort.signal.aborted && !inOrder ? abort.signal.reason : thrown;
    if (error instanceof OutputClosed || (error instanceof CommanderError && error.exitCode === 0)) return 0;
    stderr.write(json ? errorJson(asUsage(error)) : renderError(asUsage(error), style, debug));
    return exitCodeOf(error);
  } finally {
    // Whoever reads a pipe slowly gets everything: our caller ends the process, which drops what still waits.
    await Promise.all([written(stdout), written(stderr)]);
    stopListening();
  }
}

/** Resolves when everything was written, or nobody can read it any more. */
function written(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.writableLength === 0 || stream.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    stream.once("close", resolve);
    stream.write("", () => resolve());
  });
}

/** A reader of our data that had enough (`| head`) ends us, cleanly; work goes on when only its progress is not read. */
function cancelOnClosedOutput(abort: AbortController, stdout: NodeJS.WriteStream, stderr: NodeJS.WriteStream): void {
  stdout.on("error", (error) => {
    requireClosed(error);
    abort.abort(new OutputClosed());
  });
  stderr.on("error", requireClosed);
}

/** EPIPE: the pipe's reader is gone; EIO: the terminal is. Anything else is a bug. */
function requireClosed(error: Error): void {
  if (!isErrno(error, "EPIPE", "EIO")) throw error;
}

/** The first Ctrl+C stops cleanly, the second at once. A terminal that is closed (SIGHUP) leaves no VM of ours behind, either. */
function cancelOnSignals(abort: AbortController): () => void {
  const onSignal = (signal: NodeJS.Signals) => {
    const reason = new Cancelled(signal);
    if (abort.signal.aborted) process.exit(reason.exitCode);
    abort.abort(reason);
  };
  for (const signal of STOPPING_SIGNALS) process.on(signal, onSignal);
  return () => {
    for (const signal of STOPPING_SIGNALS) process.removeListener(signal, onSignal);
  };
}

async function dispatch(cli: Cli, argv: readonly string[]): Promise<number> {
  const words = argv[0] === "help" ? [...argv.slice(1), "--help"] : [...argv];
  const entry = COMMANDS.find(({ path }) => path.split(" ").every((word, index) => words[index] === word));
  if (entry) return await runPage(cli, entry, words.slice(entry.path.split(" ").length));
  const [first, second] = words.filter((word) => !word.startsWith("-"));
  const wantsHelp = words.length === 0 || words.includes("--help") || words.includes("-h");
  if (first === undefined && wantsHelp) return show(cli, overview());
  if (first !== undefined && GROUPS[first] && (wantsHelp || second === undefined))
    return show(cli, groupHelp(first), second === undefined && !wantsHelp ? 2 : 0);
  throw unknownCommand(words, first, second);
}

function show(cli: Cli, text: string, code = 0): number {
  (code === 0 ? cli.stdout : cli.stderr).write(text);
  return code;
}

function unknownCommand(words: readonly string[], first?: string, second?: string): UsageError {
  if (first === undefined) return new UsageError(`unknown option '${words[0]}'`, "`mvmctl --help` lists the commands");
  const both = `${first} ${second ?? ""}`.trimEnd();
  const candidates = COMMANDS.map(({ path }) => path).concat(Object.keys(GROUPS));
  const guess = nearest(both, candidates) ?? nearest(first, candidates);
  const typed = GROUPS[first] ? both : first;
  return new UsageError(
    `unknown command '${typed}'`,
    guess ? `did you mean \`mvmctl ${guess}\`?` : "`mvmctl --help` lists the commands",
  );
}

async function runPage(cli: Cli, entry: Entry, words: readonly string[]): Promise<number> {
  const { page } = await entry.load();
  const { args, options } = parsePage(entry.path, page, words);
  return (await page.run(cli, args, options)) ?? 0;
}

/** A page's arguments and options. Exported for tests. @throws CommanderError for wrong usage, and for help */
export function parsePage(path: string, page: Page, words: readonly string[]): { args: string[]; options: Options } {
  const newCommand = () => commandOf(path, page);
  const command = newCommand();
  let args: string[] = [];
  command.action((...parsed: unknown[]) => {
    args = positional(parsed);
  });
  command.parse(page.arrange?.(words, newCommand) ?? [...words], { from: "user" });
  return { args, options: command.opts<Options>() };
}

/** Commander calls an action with each argument, then options and the command; a variadic argument is an array. */
function positional(parsed: readonly unknown[]): string[] {
  return parsed
    .slice(0, -2)
    .flat()
    .filter((value): value is string => typeof value === "string");
}

/** A page as commander's command. Exported for the generated documentation. */
export function commandOf(path: string, page: Page): Command {
  const command = new Command(`mvmctl ${path}`)
    .summary(page.summary)
    .description([`${page.summary}.`, joinLines(page.description ?? "")].filter(Boolean).join("\n\n"))
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .showSuggestionAfterError(true)
    .helpOption("-h, --help", "show this help");
  page.define(command);
  command.option("--json", page.json ? "print data as JSON, and errors too" : "print errors as JSON");
  command.option("--debug", "show stack traces of errors");
  command.addHelpText("after", `\nExamples:\n${page.examples.map((example) => `  ${example}`).join("\n")}`);
  return command;
}

/** Paragraphs whose lines the help wraps anew, as wide as the terminal is. */
function joinLines(text: string): string {
  return text.replace(/(?<!\n)\n(?!\n)/g, " ");
}

/** Commander's complaints, as ours. */
function asUsage(error: unknown): unknown {
  if (!(error instanceof CommanderError)) return error;
  const [message = "", ...rest] = error.message.replace(/^error: /, "").split("\n");
  const suggestion = rest.join(" ").replace(/^\(Did|\)$/g, (text) => (text === ")" ? "" : "did"));
  return new UsageError(message, suggestion || "add --help to see what the command takes");
}

/** What follows `--` belongs to a command in the guest. */
function beforeDashes(argv: readonly string[]): readonly string[] {
  const dashes = argv.indexOf("--");
  return dashes < 0 ? argv : argv.slice(0, dashes);
}
