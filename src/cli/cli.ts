import type { Context } from "../core/context.ts";

/** What a command has of the world: the library's context, and where to print. */
export interface Cli extends Context {
  readonly cwd: string;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  /** Print data as JSON. */
  readonly json: boolean;
  /** Prints data: as JSON, or as the text for people. */
  readonly print: (data: unknown, text: () => string) => void;
  /** Ends live progress, so that what follows stands alone. */
  readonly settle: () => void;
  /** Says that being told to stop is how this command ends in order: its own exit code counts then, too. */
  readonly endsInOrder: () => void;
  readonly style: Style;
  /** The table of commands, for what is made from it. */
  readonly commands: readonly CommandSummary[];
}

export interface CommandSummary {
  readonly path: string;
  readonly summary: string;
}

/** Colours, or none. */
export interface Style {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly red: (text: string) => string;
  readonly green: (text: string) => string;
  readonly yellow: (text: string) => string;
}

/** https://no-color.org: any value but the empty one turns colours off. */
export function styleFor(stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv): Style {
  const colour = stream.isTTY === true && !env["NO_COLOR"] && env["TERM"] !== "dumb";
  const sgr = (on: number, off: number) => (text: string) => (colour ? `\x1b[${on}m${text}\x1b[${off}m` : text);
  return { bold: sgr(1, 22), dim: sgr(2, 22), red: sgr(31, 39), green: sgr(32, 39), yellow: sgr(33, 39) };
}
