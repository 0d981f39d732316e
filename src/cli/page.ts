import type { Command } from "commander";
import type { Cli } from "./cli.ts";

/**
 * A command, as a page: what it takes, examples, and a `run` that parses its input, calls one function of the library and
 * hands the result to a renderer.
 */
export interface Page {
  /** One line, as in the list of commands. */
  readonly summary: string;
  /** What a user should know beyond that. */
  readonly description?: string;
  /** Arguments and options, in commander's words. */
  readonly define: (command: Command) => void;
  /**
   * Puts the words that were typed in the order in which `define` takes them, where that is not the one people type.
   * @param newCommand makes the command that `define` describes, to find out which words are options
   */
  readonly arrange?: (words: readonly string[], newCommand: () => Command) => string[];
  /** Whole command lines. */
  readonly examples: readonly string[];
  /** Whether `--json` prints its data. */
  readonly json: boolean;
  /** Returns the exit code, 0 if nothing. */
  readonly run: (cli: Cli, args: string[], options: Options) => Promise<number | void>;
}

/** Options as commander parsed them, by their camel-case names. */
export type Options = Readonly<Record<string, unknown>>;

export function textOption(options: Options, name: string): string | undefined {
  const value = options[name];
  return typeof value === "string" ? value : undefined;
}

export function listOption(options: Options, name: string): string[] {
  const value = options[name];
  return Array.isArray(value) ? value.map(String) : [];
}

export function flag(options: Options, name: string): boolean {
  return options[name] === true;
}

/** For options that may be given several times. */
export function collect(value: string, earlier: string[] = []): string[] {
  return [...earlier, value];
}
